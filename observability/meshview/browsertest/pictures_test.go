package browsertest

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
)

var (
	pictures = flag.String("pictures", "", "directory for the page's pictures; none are taken if empty")
	address  = flag.String("url", "", "page to take them of; empty: of a mesh of the test")
)

func TestPictures(t *testing.T) {
	if *pictures == "" {
		t.Skip("-pictures says for which directory pictures are to be taken")
	}
	url := *address
	if url == "" {
		f, _, _, _ := small(t)
		url = f.url()
	}
	for name, dark := range map[string]bool{"mesh-light.png": false, "mesh-dark.png": true} {
		b := open(t, url, setting{width: 1440, height: 900, dark: dark})
		b.until(live + ` && document.querySelector(".calls li")`)
		b.until(`!document.querySelector(".dots use[href='#mark-new']")`) // it is of seconds only
		png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(*pictures, name), png, 0o644); err != nil {
			t.Fatal(err)
		}
		if len(png) > 200<<10 {
			t.Errorf("%s has %d bytes; want 200 KiB at most", name, len(png))
		}
	}
}
