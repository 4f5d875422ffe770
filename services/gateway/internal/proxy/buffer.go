package proxy

import (
	"net/http/httputil"
	"sync"
)

// buffers lends the 32 KiB that copying an answer needs.
var buffers httputil.BufferPool = &pool{sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}}

type pool struct{ p sync.Pool }

func (p *pool) Get() []byte  { return *p.p.Get().(*[]byte) }
func (p *pool) Put(b []byte) { p.p.Put(&b) }
