package consultest

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"runtime"
	"sync"
)

// process is a child that dies with us, in a process group of its own.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it is gone
	err   error         // valid then

	mu  sync.Mutex // guards log
	log bytes.Buffer
}

func startProcess(name string, args ...string) (*process, error) {
	p := &process{cmd: exec.CommandContext(context.Background(), name, args...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.SysProcAttr = attributes()
	// The environment may hold settings for a Consul that is none of ours.
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	started := make(chan error)
	go func() {
		// Linux ends the child when the thread that started it ends, so this
		// goroutine keeps the thread for as long as the child lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

const logMax = 64 << 10

// Write keeps the end of what the process says.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log.Write(b)
	if over := p.log.Len() - logMax; over > 0 {
		p.log.Next(over)
	}
	return len(b), nil
}

func (p *process) tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.log.Bytes()
	return string(b[max(0, len(b)-4<<10):])
}
