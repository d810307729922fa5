// Draws the losses of a run as an SVG: every line of metrics.jsonl is a JSON object.
//
//   node examples/08-chart.mjs runs/book [chart.svg]
//
// It needs no package at all. `kindling report RUN` writes a whole page of charts.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const [run, out = 'chart.svg'] = process.argv.slice(2)
if (run === undefined) {
  console.error('usage: node 08-chart.mjs RUN [chart.svg]')
  process.exit(2)
}
const lines = readFileSync(join(run, 'metrics.jsonl'), 'utf8')
  .split('\n')
  .filter((line) => line !== '')
  .map((line) => JSON.parse(line))

// [step, loss]; only some lines have a validation loss.
const points = (name) =>
  lines.filter((line) => line[name] !== undefined).map((line) => [line.step, line[name]])
const curves = [
  { name: 'training loss', colour: '#0072b2', points: points('loss') },
  { name: 'validation loss', colour: '#d55e00', points: points('val_loss') },
]

const [width, height, margin] = [640, 360, 48]
const all = curves.flatMap((curve) => curve.points)
const range = (values) => [Math.min(...values), Math.max(...values)]
const [firstStep, lastStep] = range(all.map(([step]) => step))
const [low, high] = range(all.map(([, loss]) => loss))
const across = (step) =>
  margin + ((step - firstStep) / (lastStep - firstStep || 1)) * (width - 2 * margin)
const down = (loss) => height - margin - ((loss - low) / (high - low || 1)) * (height - 2 * margin)

const path = (list) =>
  `M${list.map(([step, loss]) => `${across(step).toFixed(1)} ${down(loss).toFixed(1)}`).join('L')}`
const text = (x, y, words, more = '') => `<text x="${x}" y="${y}" ${more}>${words}</text>`
const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}"
  font-family="system-ui, sans-serif" font-size="13">
<rect width="${width}" height="${height}" fill="#fff"/>
${curves
  .filter((curve) => curve.points.length > 0)
  .map(
    (curve, i) => `<path d="${path(curve.points)}" fill="none" stroke="${curve.colour}"
  stroke-width="2" stroke-linecap="round"/>
${text(width - margin, margin + 18 * i, curve.name, `fill="${curve.colour}" text-anchor="end"`)}`,
  )
  .join('\n')}
${text(margin - 6, down(high) + 4, high.toFixed(2), 'text-anchor="end"')}
${text(margin - 6, down(low) + 4, low.toFixed(2), 'text-anchor="end"')}
${text(margin, height - margin + 20, `step ${firstStep}`)}
${text(width - margin, height - margin + 20, `step ${lastStep}`, 'text-anchor="end"')}
</svg>
`
writeFileSync(out, svg)
console.log(`wrote ${out}: ${lines.length} lines of ${run}`)
