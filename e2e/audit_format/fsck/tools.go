//go:build tools

// Package tools pins the version of Tessera whose fsck judges exported logs.
package tools

import _ "github.com/transparency-dev/tessera/cmd/fsck"
