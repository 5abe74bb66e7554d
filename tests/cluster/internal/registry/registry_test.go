package registry

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// serve starts the registry of a directory and pushes an image with one layer, unless
// content is empty.
func serve(t *testing.T, directory, repository string, content []byte) (address string, layer v1.Hash) {
	t.Helper()
	handler, err := New(directory)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	address = strings.TrimPrefix(server.URL, "http://")
	if len(content) == 0 {
		return address, layer
	}
	blob := static.NewLayer(content, types.OCILayer)
	built, err := mutate.AppendLayers(empty.Image, blob)
	if err != nil {
		t.Fatal(err)
	}
	reference, err := name.ParseReference(address+"/"+repository+":1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(reference, built); err != nil {
		t.Fatal(err)
	}
	layer, err = blob.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return address, layer
}

func get(t *testing.T, url, byteRange string) (*http.Response, []byte) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if byteRange != "" {
		request.Header.Set("Range", byteRange)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, body
}

func TestTagsSurviveARestart(t *testing.T) {
	directory := t.TempDir()
	serve(t, directory, "models/a", []byte("weights"))
	address, _ := serve(t, directory, "", nil)
	response, _ := get(t, "http://"+address+"/v2/models/a/manifests/1", "")
	if response.StatusCode != http.StatusOK {
		t.Errorf("status %s", response.Status)
	}
}

func TestPartsOfABlob(t *testing.T) {
	address, layer := serve(t, t.TempDir(), "models/a", []byte("0123456789"))
	for byteRange, wanted := range map[string]string{
		"": "0123456789", "bytes=2-4": "234", "bytes=7-": "789", "bytes=-2": "89", "bytes=8-99": "89",
	} {
		response, body := get(t, "http://"+address+"/v2/models/a/blobs/"+layer.String(), byteRange)
		if string(body) != wanted || response.Header.Get("Docker-Content-Digest") != layer.String() {
			t.Errorf("%q: %s %q", byteRange, response.Status, body)
		}
	}
	response, _ := get(t, "http://"+address+"/v2/models/a/blobs/"+layer.String(), "bytes=10-")
	if response.StatusCode != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("beyond the end: %s", response.Status)
	}
}

func TestSlowRepositoryIsSlow(t *testing.T) {
	content := bytes.Repeat([]byte("x"), SlowRate/4)
	address, layer := serve(t, t.TempDir(), SlowPrefix+"a", content)
	started := time.Now()
	_, body := get(t, "http://"+address+"/v2/"+SlowPrefix+"a/blobs/"+layer.String(), "")
	if took := time.Since(started); took < 200*time.Millisecond || !bytes.Equal(body, content) {
		t.Errorf("%d bytes in %s", len(body), took)
	}
}
