package objects

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func ask(t *testing.T, method, url, body string, headers map[string]string) (int, string) {
	t.Helper()
	request, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(answer)
}

// What the collector needs of a store: keys that are put once, lists by prefix, deletion.
func TestBucket(t *testing.T) {
	handler, err := New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	defer server.Close()
	bucket := server.URL + "/records"
	if status, answer := ask(t, http.MethodGet, bucket+"/a/key", "", nil); status != http.StatusNotFound {
		t.Fatalf("without a bucket: %d %s", status, answer)
	}
	if status, answer := ask(t, http.MethodPut, bucket, "", nil); status != http.StatusOK {
		t.Fatalf("make the bucket: %d %s", status, answer)
	}
	once := map[string]string{"If-None-Match": "*"}
	if status, answer := ask(t, http.MethodPut, bucket+"/a/key", "first", once); status != http.StatusOK {
		t.Fatalf("put: %d %s", status, answer)
	}
	if status, answer := ask(t, http.MethodPut, bucket+"/a/key", "second", once); status != http.StatusPreconditionFailed {
		t.Fatalf("put again: %d %s", status, answer)
	}
	if _, answer := ask(t, http.MethodGet, bucket+"/a/key", "", nil); answer != "first" {
		t.Fatalf("it has %q", answer)
	}
	_, list := ask(t, http.MethodGet, bucket+"?list-type=2&prefix=a/", "", nil)
	if !strings.Contains(list, "<Key>a/key</Key>") {
		t.Fatalf("it lists %s", list)
	}
	if status, answer := ask(t, http.MethodDelete, bucket+"/a/key", "", nil); status != http.StatusNoContent {
		t.Fatalf("delete: %d %s", status, answer)
	}
	if status, _ := ask(t, http.MethodGet, bucket+"/a/key", "", nil); status != http.StatusNotFound {
		t.Fatalf("it is still there: %d", status)
	}
}
