package container

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// resolvedUser is a user as the OCI runtime takes it, with the home directory that the image gives it.
type resolvedUser struct {
	specs.User
	home string
}

// account is a line of /etc/passwd.
type account struct {
	name     string
	uid, gid uint32
	home     string
}

// group is a line of /etc/group.
type group struct {
	name    string
	gid     uint32
	members []string
}

// resolveUser finds the numbers for a user and group, the groups that the image puts the user in, and the home directory. A
// number needs no entry in the image, a name does.
func resolveUser(p Process, root *root) (resolvedUser, error) {
	accounts, err := readAccounts(root)
	if err != nil {
		return resolvedUser{}, err
	}
	groups, err := readGroups(root)
	if err != nil {
		return resolvedUser{}, err
	}
	wantUser, wantGroup, hasGroup := strings.Cut(p.User, ":")
	if p.UID != nil {
		wantUser = strconv.FormatInt(*p.UID, 10)
	}
	if err := cmp.Or(checkNumber("user", p.UID), checkNumber("group", p.GID)); err != nil {
		return resolvedUser{}, err
	}
	a, err := findAccount(accounts, wantUser)
	if err != nil {
		return resolvedUser{}, err
	}
	gid := a.gid
	if hasGroup && wantGroup != "" {
		if gid, err = findGroup(groups, wantGroup); err != nil {
			return resolvedUser{}, err
		}
	}
	if p.GID != nil {
		gid = uint32(*p.GID)
	}
	all := []uint32{gid}
	// A group that was asked for takes the place of those of the image, as with docker run --user.
	if !hasGroup {
		all = append(all, a.groups(groups)...)
	}
	for _, g := range p.SupplementalGroups {
		all = append(all, uint32(g))
	}
	slices.Sort(all)
	return resolvedUser{User: specs.User{UID: a.uid, GID: gid, AdditionalGids: slices.Compact(all)}, home: a.home}, nil
}

// checkNumber reports a number that the kernel does not have; the highest means "no change" in its calls.
func checkNumber(what string, n *int64) error {
	if n != nil && (*n < 0 || *n > 1<<32-2) {
		return fmt.Errorf("%s number %d is out of range", what, *n)
	}
	return nil
}

// groups are those that list the account as a member.
func (a account) groups(groups []group) []uint32 {
	var gids []uint32
	for _, g := range groups {
		if a.name != "" && slices.Contains(g.members, a.name) {
			gids = append(gids, g.gid)
		}
	}
	return gids
}

// findAccount returns the account of a name or number; a number without one gets the group 0 and the home /.
func findAccount(accounts []account, want string) (account, error) {
	if want == "" {
		want = "0"
	}
	number, notNumber := strconv.ParseUint(want, 10, 32)
	for _, a := range accounts {
		if a.name == want || notNumber == nil && uint64(a.uid) == number {
			return a, nil
		}
	}
	switch {
	case notNumber != nil:
		return account{}, fmt.Errorf("unable to find user %s: no matching entries in passwd file", want)
	case number == 0:
		return account{home: "/root"}, nil
	}
	return account{uid: uint32(number), home: "/"}, nil
}

func findGroup(groups []group, want string) (uint32, error) {
	number, notNumber := strconv.ParseUint(want, 10, 32)
	for _, g := range groups {
		if g.name == want {
			return g.gid, nil
		}
	}
	if notNumber != nil {
		return 0, fmt.Errorf("unable to find group %s: no matching entries in group file", want)
	}
	return uint32(number), nil
}

func readAccounts(root *root) ([]account, error) {
	var accounts []account
	err := readColons(root, "/etc/passwd", 6, func(f []string) {
		uid, err1 := strconv.ParseUint(f[2], 10, 32)
		gid, err2 := strconv.ParseUint(f[3], 10, 32)
		if err1 == nil && err2 == nil {
			home := f[5]
			if home == "" {
				home = "/"
			}
			accounts = append(accounts, account{name: f[0], uid: uint32(uid), gid: uint32(gid), home: home})
		}
	})
	return accounts, err
}

func readGroups(root *root) ([]group, error) {
	var groups []group
	err := readColons(root, "/etc/group", 4, func(f []string) {
		if gid, err := strconv.ParseUint(f[2], 10, 32); err == nil {
			groups = append(groups, group{name: f[0], gid: uint32(gid), members: strings.Split(f[3], ",")})
		}
	})
	return groups, err
}

// readColons calls fn with the fields of each line that has at least so many. An image without the file has no lines.
func readColons(root *root, path string, fields int, fn func([]string)) error {
	f, err := root.open(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if parts := strings.Split(lines.Text(), ":"); len(parts) >= fields {
			fn(parts)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading %s of the image: %w", path, err)
	}
	return nil
}
