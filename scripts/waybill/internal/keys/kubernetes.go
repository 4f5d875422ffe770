// Package keys hands each service the key that it signs its calls with, and all of them the public halves.
package keys

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// cluster is how a pod reaches its own API server (https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/).
type cluster struct {
	url       string
	token     string
	namespace string
	client    *http.Client
}

const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

func inCluster() (*cluster, error) {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" {
		return nil, errors.New("--kubernetes works inside a pod only: KUBERNETES_SERVICE_HOST is not set")
	}
	read := func(name string) (string, error) {
		b, err := os.ReadFile(filepath.Join(serviceAccount, name))
		return strings.TrimSpace(string(b)), err
	}
	token, err := read("token")
	if err != nil {
		return nil, fmt.Errorf("read the pod's token: %w", err)
	}
	namespace, err := read("namespace")
	if err != nil {
		return nil, fmt.Errorf("read the pod's namespace: %w", err)
	}
	ca, err := read("ca.crt")
	if err != nil {
		return nil, fmt.Errorf("read the cluster's certificate authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(ca)) {
		return nil, errors.New("the cluster's certificate authority is not PEM")
	}
	if strings.Contains(host, ":") { // IPv6
		host = "[" + host + "]"
	}
	return &cluster{
		url: "https://" + host + ":" + port, token: token, namespace: namespace,
		client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}},
	}, nil
}

// Store writes the files of dir as the Secret name of the pod's own namespace. A secret of that name that exists already is
// kept, as the services run with its keys: that is success, and kept is true. The pod's account needs `create` on secrets.
func Store(ctx context.Context, dir, name string) (kept bool, err error) {
	c, err := inCluster()
	if err != nil {
		return false, err
	}
	return c.store(ctx, dir, name)
}

func (c *cluster) store(ctx context.Context, dir, name string) (kept bool, err error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	data := map[string][]byte{} // encoding/json writes []byte as base64, which is what data: wants
	for _, f := range files {
		if data[f.Name()], err = os.ReadFile(filepath.Join(dir, f.Name())); err != nil {
			return false, err
		}
	}
	body, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": map[string]string{"name": name}, "data": data,
	})
	if err != nil {
		return false, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/api/v1/namespaces/"+c.namespace+"/secrets", bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	r.Header.Set("Content-Type", "application/json")
	resp, err := c.client.Do(r)
	if err != nil {
		return false, fmt.Errorf("create secret %s: %w", name, err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusCreated:
		return false, nil
	case http.StatusConflict:
		return true, nil
	}
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	return false, fmt.Errorf("create secret %s: the API server answers %s: %s", name, resp.Status, said)
}
