// Package tree holds the tests that keep the repository in order: every package says what it is for, and no package imports what
// its side of the house may not. It has no code of its own.
package tree
