// Package tree holds the tests that keep the repository in order: every package says what it is for, no package imports what its
// side of the house may not, and what the documents name exists. It has no code of its own.
package tree
