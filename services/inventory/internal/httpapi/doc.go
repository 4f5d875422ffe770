// Package httpapi is the HTTP interface of the stockroom. What each endpoint takes and answers is in openapi.yaml beside
// main.go; tests send every documented answer through it.
package httpapi
