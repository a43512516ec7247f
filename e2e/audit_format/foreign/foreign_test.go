// Package foreign lets Go's own transparency log packages judge what Pilot Identity wrote.
//
// The directory that AUDIT_LOG names is an exported log, with receipts (*.tlog-proof) and consistency proofs
// (*.consistency: the sizes and the signed note before, then one hash a line) beside its tiles, and the heads that
// witnesses cosigned (cosigned, with the keys in witnesses). Nothing here shares a line of code with the Python that
// wrote them.
package foreign

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	cosignature "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const tileHeight = 8

func directory(t *testing.T) string {
	t.Helper()
	path := os.Getenv("AUDIT_LOG")
	if path == "" {
		t.Fatal("AUDIT_LOG names the directory of the exported log")
	}
	return path
}

func read(t *testing.T, elements ...string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(elements...))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// opened verifies a checkpoint with Go's note package and returns the tree that it signs.
func opened(t *testing.T, dir string, signed []byte) tlog.Tree {
	t.Helper()
	verifier, err := note.NewVerifier(strings.TrimSpace(string(read(t, dir, "vkey"))))
	if err != nil {
		t.Fatalf("the vkey is none: %v", err)
	}
	message, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		t.Fatalf("the note does not open: %v", err)
	}
	lines := strings.Split(message.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		t.Fatalf("no checkpoint of %s: %q", verifier.Name(), message.Text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		t.Fatal(err)
	}
	return tlog.Tree{N: size, Hash: root}
}

// files reads tiles for Go's tlog package, which believes none of them that does not lead to the root.
type files string

func (dir files) Height() int { return tileHeight }

func (dir files) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var contents [][]byte
	for _, tile := range tiles {
		// Go's path begins with the height, which tlog-tiles.md fixes and leaves out.
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", tileHeight), "tile/", 1)
		content, err := os.ReadFile(filepath.Join(string(dir), filepath.FromSlash(path)))
		if err != nil {
			return nil, err
		}
		contents = append(contents, content)
	}
	return contents, nil
}

func (dir files) SaveTiles([]tlog.Tile, [][]byte) {}

func TestEveryEntryIsInTheSignedTree(t *testing.T) {
	dir := directory(t)
	tree := opened(t, dir, read(t, dir, "checkpoint"))
	reader := tlog.TileHashReader(tree, files(dir))
	for start := int64(0); start < tree.N; start += 256 {
		path := tlog.Tile{H: tileHeight, L: 0, N: start / 256, W: int(min(256, tree.N-start))}.Path()
		bundle := read(t, dir, strings.Replace(path, fmt.Sprintf("tile/%d/0/", tileHeight), "tile/entries/", 1))
		var places []int64
		for index := start; index < min(start+256, tree.N); index++ {
			places = append(places, tlog.StoredHashIndex(0, index))
		}
		stored, err := reader.ReadHashes(places)
		if err != nil {
			t.Fatalf("entries from %d on: %v", start, err)
		}
		for offset, hash := range stored {
			length := binary.BigEndian.Uint16(bundle)
			entry := bundle[2 : 2+length]
			bundle = bundle[2+length:]
			if hash != tlog.RecordHash(entry) {
				t.Fatalf("entry %d is not the one in the tree", start+int64(offset))
			}
		}
		if len(bundle) != 0 {
			t.Fatalf("%d bytes behind the last entry of bundle %d", len(bundle), start/256)
		}
	}
	root, err := tlog.TreeHash(tree.N, reader)
	if err != nil || root != tree.Hash {
		t.Fatalf("the tiles make root %v (%v), signed is %v", root, err, tree.Hash)
	}
}

func TestEveryReceiptProvesItsEntry(t *testing.T) {
	dir := directory(t)
	paths, _ := filepath.Glob(filepath.Join(dir, "*.tlog-proof"))
	if len(paths) == 0 {
		t.Fatal("no receipt was given")
	}
	for _, path := range paths {
		head, signed, _ := bytes.Cut(read(t, path), []byte("\n\n"))
		tree := opened(t, dir, signed)
		lines := strings.Split(string(head), "\n")
		if lines[0] != "c2sp.org/tlog-proof@v1" {
			t.Fatalf("%s: begins with %q", path, lines[0])
		}
		extra, _ := strings.CutPrefix(lines[1], "extra ")
		entry, err := base64.StdEncoding.DecodeString(extra)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := strings.CutPrefix(lines[2], "index ")
		index, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckRecord(hashes(t, lines[3:]), tree.N, tree.Hash, index, tlog.RecordHash(entry)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if err := tlog.CheckRecord(hashes(t, lines[3:]), tree.N, tree.Hash, index, tlog.RecordHash([]byte("false"))); err == nil {
			t.Errorf("%s proves an entry that is not in the log", path)
		}
	}
}

func TestEveryConsistencyProofJoinsItsTrees(t *testing.T) {
	dir := directory(t)
	tree := opened(t, dir, read(t, dir, "checkpoint"))
	paths, _ := filepath.Glob(filepath.Join(dir, "*.consistency"))
	if len(paths) == 0 {
		t.Fatal("no consistency proof was given")
	}
	for _, path := range paths {
		lines := strings.Split(strings.TrimSuffix(string(read(t, path)), "\n"), "\n")
		size, err := strconv.ParseInt(lines[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		old, err := tlog.ParseHash(lines[1])
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckTree(hashes(t, lines[2:]), tree.N, tree.Hash, size, old); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestEveryCosignatureIsByItsWitnessOnAHeadOfThisTree(t *testing.T) {
	dir := directory(t)
	tree := opened(t, dir, read(t, dir, "checkpoint"))
	reader := tlog.TileHashReader(tree, files(dir))
	keys := strings.Split(strings.TrimSpace(string(read(t, dir, "witnesses"))), "\n")
	signed := notes(string(read(t, dir, "cosigned")))
	if len(keys) == 0 || len(signed) != len(keys) {
		t.Fatalf("%d witnesses and %d cosigned heads", len(keys), len(signed))
	}
	for at, key := range keys {
		verifier, err := cosignature.NewVerifierForCosignatureV1(key)
		if err != nil {
			t.Fatalf("the witness's vkey is none: %v", err)
		}
		message, err := note.Open([]byte(signed[at]), note.VerifierList(verifier))
		if err != nil {
			t.Fatalf("%s did not cosign it: %v", verifier.Name(), err)
		}
		told, err := cosignature.CoSigV1Timestamp(message.Sigs[0])
		if err != nil || told.Year() < 2026 || told.After(time.Now().Add(time.Minute)) {
			t.Errorf("%s cosigned at %v (%v)", verifier.Name(), told, err)
		}
		head := opened(t, dir, []byte(signed[at]))
		root, err := tlog.TreeHash(head.N, reader)
		if err != nil || root != head.Hash {
			t.Errorf("the first %d entries make root %v (%v), cosigned is %v", head.N, root, err, head.Hash)
		}
		other := strings.Replace(signed[at], "\n", "/other\n", 1)
		if _, err := note.Open([]byte(other), note.VerifierList(verifier)); err == nil {
			t.Errorf("%s's cosignature holds for another log", verifier.Name())
		}
	}
}

// notes takes the file of cosigned heads apart: an empty line stands between two, and one within each.
func notes(text string) []string {
	var found []string
	parts := strings.Split(text, "\n\n")
	for at := 0; at+1 < len(parts); at += 2 {
		found = append(found, parts[at]+"\n\n"+strings.TrimSuffix(parts[at+1], "\n")+"\n")
	}
	return found
}

func hashes(t *testing.T, lines []string) []tlog.Hash {
	t.Helper()
	var parsed []tlog.Hash
	for _, line := range lines {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, hash)
	}
	return parsed
}
