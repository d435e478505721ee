// Command server is what the pods of the agent's tests run.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "exec" {
		fmt.Print("executed ", os.Args[2])
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	mux.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, os.Getenv(r.FormValue("name"))) })
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		data, err := os.ReadFile(r.FormValue("name"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		_, _ = w.Write(data)
	})
	mux.HandleFunc("/print", func(_ http.ResponseWriter, r *http.Request) { fmt.Println(r.FormValue("line")) })
	mux.HandleFunc("/exit", func(_ http.ResponseWriter, r *http.Request) {
		_ = os.WriteFile("/dev/termination-log", []byte(r.FormValue("message")), 0o600)
		code, _ := strconv.Atoi(r.FormValue("code"))
		os.Exit(code)
	})
	private, err := net.Listen("tcp", "127.0.0.1:9000")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		log.Fatal(http.Serve(private, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "private") })))
	}()
	fmt.Println("listening")
	log.Fatal(http.ListenAndServe(":8080", mux))
}
