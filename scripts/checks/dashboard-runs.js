/** Synthetic metrics for the test of the dashboard in a browser. */
const fs = require('node:fs')

/** Returns a generator of numbers in [0, 1), the same ones for the same seed. */
function random(seed) {
  let state = seed >>> 0
  return () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32
}

/** Returns line `i` of `total` of a metrics.jsonl. */
function metricsLine(i, total, more = {}, next = random(i)) {
  const done = i / total
  const loss = 1.5 + 8 * Math.exp(-6 * done) + 0.2 * (next() - 0.5)
  const line = {
    step: i * 10,
    tokens: i * 81_920,
    loss: Number(loss.toFixed(6)),
    lr: 3e-4 * Math.min(1, 10 * done) * (0.55 + 0.45 * Math.cos(Math.PI * done)),
    grad_norm: Number((0.8 + 0.5 * next()).toFixed(6)),
    tokens_per_second: Math.round(95_000 + 5000 * next()),
    mfu: Number((0.4 + 0.02 * next()).toFixed(4)),
    elapsed_s: Number((i * 0.083).toFixed(3)),
    memory_mib: 1200 + Math.round(50 * next()),
    ...(i % 500 === 0 && { val_loss: loss + 0.05, perplexity: Math.exp(loss + 0.05) }),
    ...(i % 5000 === 0 && { sample: `sample of step ${i * 10}` }),
    ...more,
  }
  return `${JSON.stringify(line)}\n`
}

/** Writes a metrics.jsonl of many lines. */
function writeLines(file, total, seed = 1) {
  const next = random(seed)
  const out = fs.openSync(file, 'w')
  let text = ''
  for (let i = 1; i <= total; i++) {
    text += metricsLine(i, total, {}, next)
    if (text.length > 1 << 20 || i === total) {
      fs.writeSync(out, text)
      text = ''
    }
  }
  fs.closeSync(out)
}

module.exports = { metricsLine, writeLines }
