package main

import (
	"bytes"
	"image/color"
	"math"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/judge"
)

var (
	green  = color.RGBA{R: 0x2e, G: 0x7d, B: 0x32, A: 0xff}
	red    = color.RGBA{R: 0xc6, G: 0x28, B: 0x28, A: 0xff}
	blue   = color.RGBA{R: 0x15, G: 0x65, B: 0xc0, A: 0xff}
	orange = color.RGBA{R: 0xef, G: 0x6c, B: 0x00, A: 0xff}
	grey   = color.RGBA{R: 0x61, G: 0x61, B: 0x61, A: 0xff}
)

// picture draws success and latency against time, with the fault's start and end, and the recovery, marked.
func picture(r *judge.Row) ([]byte, error) {
	const step = 500 * time.Millisecond
	var served, failed, p50, p99 plotter.XYs
	top := 0.0
	for at := r.Began; !at.Add(step).After(r.Ended); at = at.Add(step) { // the last one would be a part
		w := judge.Over(r.Samples, at, at.Add(step))
		if w.Requests == 0 {
			continue
		}
		x := at.Sub(r.Began).Seconds()
		served = append(served, plotter.XY{X: x, Y: float64(w.Requests-w.Failed) / step.Seconds()})
		failed = append(failed, plotter.XY{X: x, Y: float64(w.Failed) / step.Seconds()})
		p50 = append(p50, plotter.XY{X: x, Y: ms(w.P50)})
		p99 = append(p99, plotter.XY{X: x, Y: ms(w.P99)})
		top = max(top, float64(w.Requests)/step.Seconds())
	}
	count, err := panel("", "requests a second", map[string]line2{"served": {served, green}, "failed": {failed, red}})
	if err != nil {
		return nil, err
	}
	count.Title.Text = r.Title
	count.Y.Min, count.Y.Max = 0, 1.5*top
	lat, err := panel("seconds", "latency (ms)", map[string]line2{"p50": {p50, blue}, "p99": {p99, orange}})
	if err != nil {
		return nil, err
	}
	lat.Y.Scale, lat.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	lat.Y.Min, lat.Y.Max = decade(lat.Y.Min, math.Floor), decade(lat.Y.Max, math.Ceil)
	for _, p := range []*plot.Plot{count, lat} {
		p.X.Min, p.X.Max = 0, r.Ended.Sub(r.Began).Seconds()
		for _, mark := range []struct {
			at     time.Time
			colour color.Color
		}{{r.Start, red}, {r.End, green}, {r.Recovered, grey}} {
			x := mark.at.Sub(r.Began).Seconds()
			l, err := plotter.NewLine(plotter.XYs{{X: x, Y: p.Y.Min}, {X: x, Y: p.Y.Max}})
			if err != nil {
				return nil, err
			}
			l.Color, l.Dashes, l.Width = mark.colour, []vg.Length{vg.Points(4), vg.Points(3)}, vg.Points(1)
			p.Add(l)
		}
	}
	count.X.Label.Text = "dashed: the fault's start (red) and end (green), all well again (grey)"
	count.X.Label.TextStyle.Font.Size = vg.Points(9)

	c := vgsvg.New(20*vg.Centimeter, 13*vg.Centimeter)
	tiles := draw.Tiles{Rows: 2, Cols: 1, PadY: vg.Points(8)}
	canvases := plot.Align([][]*plot.Plot{{count}, {lat}}, tiles, draw.New(c))
	count.Draw(canvases[0][0])
	lat.Draw(canvases[1][0])
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

type line2 struct {
	points plotter.XYs
	colour color.Color
}

func panel(x, y string, lines map[string]line2) (*plot.Plot, error) {
	p := plot.New()
	p.BackgroundColor = color.White
	p.X.Label.Text, p.Y.Label.Text = x, y
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	for _, name := range []string{"served", "failed", "p50", "p99"} {
		l, ok := lines[name]
		if !ok || len(l.points) == 0 {
			continue
		}
		drawn, err := plotter.NewLine(l.points)
		if err != nil {
			return nil, err
		}
		drawn.Color, drawn.Width = l.colour, vg.Points(1.2)
		p.Add(drawn)
		p.Legend.Add(name, drawn)
	}
	return p, nil
}

// ms is a time in milliseconds, not below what the logarithmic axis shows.
func ms(d time.Duration) float64 { return max(0.1, float64(d)/float64(time.Millisecond)) }

// decade rounds to a power of ten.
func decade(v float64, round func(float64) float64) float64 {
	return math.Pow(10, round(math.Log10(v)))
}
