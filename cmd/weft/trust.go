package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/weft-dev/weft/cmd/weft/settings"
	"github.com/weft-dev/weft/cmd/weft/trust"
	"github.com/weft-dev/weft/mesh/authority"
)

func newTrustCommand(g *global) *cobra.Command {
	var path, install, remove bool
	cmd := &cobra.Command{
		Use:   "trust",
		Short: "Print the platform's root certificate, or have this machine trust it",
		Long: `Print the root certificate behind the platform's https URLs, or have this machine trust it.

The platform is its own certificate authority. The root is made by the first weft up, stays until weft down --purge, and is believed for
the platform's domain only. --install adds it to the roots that curl and most other programs trust, where update-ca-certificates is
there (Debian, Ubuntu); browsers that have roots of their own want the file that --path names.`,
		Example: `  curl --cacert $(weft trust --path) https://hello.default.localhost:8443

  # For all programs of this machine, and back
  sudo weft trust --install
  sudo weft trust --remove`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Cobra's own check would copy the flags of libraries into the command.
			if path && install || path && remove || install && remove {
				return errors.New("--path, --install and --remove exclude each other")
			}
			s, err := settings.Load(g.dir())
			if err != nil {
				return err
			}
			if remove {
				return distrust(cmd, s)
			}
			file := authority.RootPath(s.AuthorityDir())
			root, err := os.ReadFile(file)
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%s does not exist: the first `weft up` makes it", file)
			}
			if err != nil {
				return fmt.Errorf("reading the root certificate: %w", err)
			}
			switch {
			case install:
				return believe(cmd, s, root)
			case path:
				_, err = fmt.Fprintln(cmd.OutOrStdout(), file)
			default:
				_, err = cmd.OutOrStdout().Write(root)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&path, "path", false, "print where the file is")
	cmd.Flags().BoolVar(&install, "install", false, "have this machine trust it")
	cmd.Flags().BoolVar(&remove, "remove", false, "have this machine no longer trust it")
	return cmd
}

func believe(cmd *cobra.Command, s settings.Settings, root []byte) error {
	var store trust.Store
	changed, err := store.Install(cmd.Context(), s.Name, root)
	if errors.Is(err, trust.ErrNoStore) {
		return fmt.Errorf("%w: add %s to its trusted roots by the means that it has", trust.ErrNoStore, authority.RootPath(s.AuthorityDir()))
	}
	if err != nil {
		return err
	}
	text := "%s is trusted already\n"
	if changed {
		text = "wrote %s and ran " + trust.Command + ": programs that start from now on trust https URLs of the platform\n"
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), text, store.Path(s.Name))
	return err
}

func distrust(cmd *cobra.Command, s settings.Settings) error {
	var store trust.Store
	changed, err := store.Remove(cmd.Context(), s.Name)
	if err != nil {
		return err
	}
	text := "there is no %s: nothing to remove\n"
	if changed {
		text = "removed %s and ran " + trust.Command + "\n"
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), text, store.Path(s.Name))
	return err
}
