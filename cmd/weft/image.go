package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/spf13/cobra"

	"github.com/weft-dev/weft/node/image"
)

// imageDir is the image store's folder below the state directory, which the node agent opens too.
const imageDir = "images"

// newImageCommand returns `weft image`. It works on the store's files, so that images can be prepared before `weft up`, and a
// running platform sees them at once.
func newImageCommand(stateDir func() string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Build, import, pull and remove the images of this machine",
		Long: `Build, import, pull and remove the images of this machine.

Images named dev.local/..., ko.local/... or kind.local/... are in no registry: they are built or imported here, and never pulled.`,
		Args: cobra.NoArgs,
	}
	open := func() (*image.Store, error) {
		return image.Open(filepath.Join(stateDir(), imageDir), image.Options{})
	}
	cmd.AddCommand(newImageBuild(open), newImageImport(open), newImageList(open), newImagePull(open), newImageRemove(open), newImageTag(open),
		newImagePrune(open))
	return cmd
}

// openStore opens the store when a command runs, not when the command is made: --help must touch no disk.
type openStore func() (*image.Store, error)

func newImageBuild(open openStore) *cobra.Command {
	var base, output string
	var flags, env []string
	cmd := &cobra.Command{
		Use:   "build NAME [PACKAGE]",
		Short: "Build an image from a Go main package",
		Long: `Build an image from a Go main package, without any container engine.

PACKAGE is a directory, or an import path as the module of the current directory knows it. The binary is static and runs as user
65532. A directory named kodata beside the source is in the image as $KO_DATA_PATH. A NAME without a registry gets dev.local/ in front.`,
		Example: `  # Build the package in the current directory as dev.local/hello:latest
  weft image build hello

  # Build another package, with a version
  weft image build dev.local/hello:v1 ./samples/hello

  # Build on a base image
  weft image build hello:v2 ./cmd/hello --base docker.io/library/alpine:3.22

  # Build a package of a required module, and write the image to a directory for other tools
  weft image build hello example.com/greetings/cmd/hello --output ./hello`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := open()
			if err != nil {
				return err
			}
			pkg := "."
			if len(args) == 2 {
				pkg = args[1]
			}
			out := newProgressPrinter(cmd.ErrOrStderr())
			start := time.Now()
			img, err := s.Build(cmd.Context(), image.BuildOptions{
				Name: args[0], Package: pkg, Layout: output, BaseImage: base, Flags: flags, Env: env,
				Pull: image.PullOptions{Keychain: authn.DefaultKeychain, Progress: out.step("pulling " + base)},
			})
			out.end()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "built %s (%s, %s in %s)\n", img.Name, shortID(img.ID), bytesText(img.Size), roundTime(time.Since(start)))
			return err
		},
	}
	cmd.Flags().StringVar(&base, "base", "", "image to build on (default: only users, certificates and /tmp)")
	cmd.Flags().StringArrayVar(&flags, "flag", nil, "argument for go build, for example --flag=-tags=netgo; repeatable")
	cmd.Flags().StringArrayVar(&env, "env", nil, "KEY=value for the environment of the program; repeatable")
	cmd.Flags().StringVar(&output, "output", "", "new directory to write an OCI layout to, in place of the images of this machine")
	cmd.MarkFlagsMutuallyExclusive("output", "base")
	return cmd
}

func newImageImport(open openStore) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "import FILE...",
		Short: "Import images from files or directories",
		Long: `Import images from OCI layouts (a directory or a tar file) and docker archives ("docker save", "podman save").

Files may be compressed with gzip or zstd. The file - is standard input.`,
		Example: `  docker save my/app:v1 | weft image import -
  weft image import app.tar other.tar.gz
  weft image import ./oci-layout --name dev.local/app:v1`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if name != "" && len(args) > 1 {
				return errors.New("--name names one image, but there are several files")
			}
			s, err := open()
			if err != nil {
				return err
			}
			for _, file := range args {
				if err := importFile(cmd, s, file, name); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name for the image, instead of the one in the file")
	return cmd
}

// importFile imports one argument of `weft image import`.
func importFile(cmd *cobra.Command, s *image.Store, file, name string) error {
	out := newProgressPrinter(cmd.ErrOrStderr())
	opts := image.ImportOptions{Name: name, Progress: out.step("importing " + file)}
	var names []string
	var err error
	if file == "-" {
		names, err = s.ImportReader(cmd.Context(), cmd.InOrStdin(), opts)
	} else {
		names, err = s.Import(cmd.Context(), file, opts)
	}
	out.end()
	for _, n := range names {
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "imported %s\n", n); err != nil {
			return err
		}
	}
	return err
}

func newImageList(open openStore) *cobra.Command {
	var quiet, digests bool
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the images of this machine",
		Example: `  weft image ls
  weft image ls --digests`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := open()
			if err != nil {
				return err
			}
			images, err := s.List(cmd.Context())
			if err != nil {
				return err
			}
			return printImages(cmd.OutOrStdout(), images, quiet, digests, time.Now())
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print only IDs")
	cmd.Flags().BoolVar(&digests, "digests", false, "print the names by digest of images that have tags, too")
	return cmd
}

// printImages writes the table of `weft image ls`.
func printImages(w io.Writer, images []image.Listed, quiet, digests bool, now time.Time) error {
	var text strings.Builder
	if !quiet {
		text.WriteString("NAME\tID\tSIZE\tADDED\n")
	}
	for _, img := range images {
		if quiet {
			text.WriteString(shortID(img.ID) + "\n")
			continue
		}
		tagged := !strings.Contains(img.Names[0], "@")
		for _, n := range img.Names {
			if tagged && !digests && strings.Contains(n, "@") {
				continue
			}
			text.WriteString(strings.Join([]string{n, shortID(img.ID), bytesText(img.Size), ageText(now.Sub(img.Added)) + " ago"}, "\t") + "\n")
		}
	}
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	if _, err := io.WriteString(tw, text.String()); err != nil {
		return err
	}
	return tw.Flush()
}

func newImagePull(open openStore) *cobra.Command {
	return &cobra.Command{
		Use:   "pull NAME...",
		Short: "Pull images from their registries",
		Long: `Pull images from their registries, with the credentials of "docker login" when there are some.

Pods pull by themselves; pulling ahead makes a first start fast.`,
		Example: `  weft image pull nginx:1.27
  weft image pull ghcr.io/knative/helloworld-go:latest localhost:5000/app`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := open()
			if err != nil {
				return err
			}
			for _, ref := range args {
				out := newProgressPrinter(cmd.ErrOrStderr())
				img, err := s.Pull(cmd.Context(), ref, image.PullOptions{Keychain: authn.DefaultKeychain, Progress: out.step("pulling " + ref)})
				out.end()
				if err != nil {
					return err
				}
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "pulled %s (%s, %s)\n", img.Name, shortID(img.ID), bytesText(img.Size)); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func newImageRemove(open openStore) *cobra.Command {
	return &cobra.Command{
		Use:     "rm NAME|ID...",
		Aliases: []string{"remove"},
		Short:   "Remove images",
		Long: `Remove names of images, and with the last name the image. What running containers use stays on disk until they end and
"weft image prune" or the platform's own collection comes by.`,
		Example: `  weft image rm dev.local/hello:v1
  weft image rm 3b1f6a1de0b8`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := open()
			if err != nil {
				return err
			}
			for _, ref := range args {
				names, err := s.Remove(cmd.Context(), ref)
				if err != nil {
					return err
				}
				for _, n := range names {
					if _, err := fmt.Fprintf(cmd.OutOrStdout(), "removed %s\n", n); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
}

func newImageTag(open openStore) *cobra.Command {
	return &cobra.Command{
		Use:     "tag NAME|ID NEW-NAME",
		Short:   "Give an image another name",
		Example: `  weft image tag dev.local/hello:v2 dev.local/hello:latest`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := open()
			if err != nil {
				return err
			}
			return s.Tag(cmd.Context(), args[0], args[1])
		},
	}
}

func newImagePrune(open openStore) *cobra.Command {
	return &cobra.Command{
		Use:   "prune",
		Short: "Free the disk space that no image and no container uses",
		Long: `Free the disk space that no image and no running container uses. Waits until no pull, import or build is under way.

Images themselves stay; "weft image rm" removes them.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := open()
			if err != nil {
				return err
			}
			done, err := s.Collect(cmd.Context(), nil)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "removed %d layers and %d blobs\n", done.Layers, done.Blobs)
			return err
		},
	}
}
