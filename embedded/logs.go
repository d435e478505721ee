package embedded

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"

	"google.golang.org/grpc/grpclog"
	"gopkg.in/natefinch/lumberjack.v2"
	"k8s.io/klog/v2"
)

// Bounds of a log file, after which it is put aside, and of those put aside.
const (
	logMegabytes = 20
	logBackups   = 2
)

// logFiles are where the libraries write, who otherwise write to the terminal.
type logFiles struct {
	etcd, kubernetes *lumberjack.Logger
}

// openLogs points klog and gRPC, both global, to files in dir. Kubernetes libraries log through klog without being given a logger.
func openLogs(dir string) (*logFiles, error) {
	open := func(name string) *lumberjack.Logger {
		return &lumberjack.Logger{Filename: filepath.Join(dir, name), MaxSize: logMegabytes, MaxBackups: logBackups}
	}
	l := &logFiles{etcd: open("etcd.log"), kubernetes: open("kubernetes.log")}
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	for name, value := range map[string]string{
		"logtostderr": "false", "alsologtostderr": "false", "stderrthreshold": "FATAL", "one_output": "true", "v": "0",
	} {
		if err := flags.Set(name, value); err != nil {
			return nil, fmt.Errorf("setting klog flag %q: %w", name, err)
		}
	}
	klog.SetOutput(l.kubernetes)
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, l.kubernetes))
	return l, nil
}

// Close flushes and closes the files. Whatever is logged later opens them again.
func (l *logFiles) Close() error {
	klog.Flush()
	return errors.Join(l.etcd.Close(), l.kubernetes.Close())
}
