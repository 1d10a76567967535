// Command golden answers what Go's standard library makes of tar headers, trees and patterns.
//
// Each line of its input is a request in JSON, each line of its output the answer; bytes are in
// base64. Only what Go 1.19 has is used: it is what Debian 12 has.
package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"time"
)

type request struct {
	Headers []entry // what these are as headers
	Tree    []byte  // what the archive of this directory is
	UID     int     // the owner of everything in it
	GID     int
	Pattern []byte // which of the paths it matches
	Paths   [][]byte
}

type entry struct {
	Name, Target []byte
	Kind         byte
	Mode, Size   int64
	UID, GID     int
	Major, Minor int64
}

type answer struct {
	Headers [][]byte
	Archive []byte
	Matches []string // "yes", "no", or the error
	Error   string
}

var moment = time.Date(1980, time.January, 1, 0, 0, 1, 0, time.UTC)

func main() {
	input := json.NewDecoder(bufio.NewReader(os.Stdin))
	output := json.NewEncoder(os.Stdout)
	for {
		var asked request
		if err := input.Decode(&asked); err == io.EOF {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		var told answer
		var err error
		if told.Headers, err = headers(asked.Headers); err == nil && asked.Tree != nil {
			told.Archive, err = archive(string(asked.Tree), asked.UID, asked.GID)
		}
		if err != nil {
			told.Error = err.Error()
		}
		told.Matches = matches(string(asked.Pattern), asked.Paths)
		if err := output.Encode(told); err != nil {
			log.Fatal(err)
		}
	}
}

func headers(entries []entry) ([][]byte, error) {
	var all [][]byte
	for _, e := range entries {
		var written bytes.Buffer
		err := tar.NewWriter(&written).WriteHeader(&tar.Header{
			Name: string(e.Name), Linkname: string(e.Target), Typeflag: e.Kind,
			Mode: e.Mode, Uid: e.UID, Gid: e.GID, Size: e.Size,
			Devmajor: e.Major, Devminor: e.Minor, ModTime: moment,
		})
		if err != nil {
			return nil, err
		}
		all = append(all, written.Bytes())
	}
	return all, nil
}

func archive(root string, uid, gid int) ([]byte, error) {
	var written bytes.Buffer
	writer := tar.NewWriter(&written)
	err := filepath.Walk(root, func(path string, info fs.FileInfo, err error) error {
		if err != nil || info.Mode()&fs.ModeSocket != 0 {
			return err
		}
		target := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			if target, err = os.Readlink(path); err != nil {
				return err
			}
		}
		header, err := tar.FileInfoHeader(info, target)
		if err != nil {
			return err
		}
		header.Name, header.ModTime = path, moment
		header.Uid, header.Gid, header.Uname, header.Gname = uid, gid, "", ""
		if err := writer.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(writer, file)
		return err
	})
	if err == nil {
		err = writer.Close()
	}
	return written.Bytes(), err
}

func matches(pattern string, paths [][]byte) []string {
	var all []string
	for _, path := range paths {
		found, err := filepath.Match(filepath.Clean(pattern), string(path))
		word := "no"
		if err != nil {
			word = err.Error()
		} else if found {
			word = "yes"
		}
		all = append(all, word)
	}
	return all
}
