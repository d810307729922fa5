/**
 * Fine-tunes SmolLM2-135M-Instruct (GGUF) on the same batches here and in PyTorch, and compares
 * losses, speed and peak memory. Both start from f32 weights, with AdamW on all parameters.
 * Usage: node scripts/campaigns/exchange/finetune.js [--steps 20] [--dtype f32|bf16] [--threads 2]
 * [--compile] [--text FILE]
 */
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { campaign, claim, option, root, skip, text } = require('../claims')
const fetch = require('./fetch')

const { AdamW, load, peakRssMib } = require(path.join(root, 'dist'))
const STEPS = Number(option('steps', '20'))
const DTYPE = option('dtype', 'f32')
const THREADS = Number(option('threads', '2'))
const LR = 1e-5
const ROWS = 8
const TOKENS = 256
/** Largest difference of losses. In bf16, autocast rounds elsewhere than the engine does. */
const TOLERANCE = DTYPE === 'f32' ? 1e-3 : 2e-2

/** Cuts the ids of a text into batches of ROWS windows of TOKENS + 1. */
function batchesOf(ids) {
  const window = (n) => [...ids.slice(n * TOKENS, (n + 1) * TOKENS + 1)]
  return Array.from({ length: STEPS }, (_, step) =>
    Array.from({ length: ROWS }, (__, row) => window(step * ROWS + row)),
  )
}

async function trainHere(file) {
  const { model, tokenizer } = await load(file, { dtype: DTYPE, threads: THREADS })
  const corpus = fs.readFileSync(option('text', text), 'utf8').slice(0, 4_000_000)
  const batches = batchesOf(await tokenizer.encode(corpus))
  const optimizer = new AdamW(model, { weightDecay: 0.01, betas: [0.9, 0.95] })
  const [losses, seconds] = [[], []]
  for (const batch of batches) {
    const started = performance.now()
    const x = batch.map((row) => Int32Array.from(row.slice(0, -1)))
    const y = batch.map((row) => Int32Array.from(row.slice(1)))
    const { loss } = await model.forwardBackward({ x, y })
    await optimizer.clipGradNorm(1)
    await optimizer.step({ lr: LR })
    losses.push(loss)
    seconds.push((performance.now() - started) / 1000)
  }
  return { batches, losses, seconds, peak: peakRssMib() }
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1]
const speed = (seconds) => (ROWS * TOKENS) / median(seconds)

async function main() {
  const [python, file] = [fetch.python(), fetch.smollm2()]
  if (python === null || file === null)
    return skip('fine-tuning SmolLM2', python === null ? 'no transformers' : 'no model')
  const ours = await trainHere(file)
  const asked = { model: file, batches: ours.batches, lr: LR, dtype: DTYPE, threads: THREADS }
  const input = JSON.stringify({ ...asked, compile: process.argv.includes('--compile') })
  const peer = spawnSync(python, [path.join(__dirname, 'finetune_peer.py')], {
    input,
    encoding: 'utf8',
    env: { ...process.env, CUDA_VISIBLE_DEVICES: '' },
    maxBuffer: 2 ** 26,
  })
  if (peer.status !== 0) throw new Error(peer.stderr)
  const theirs = JSON.parse(peer.stdout.trim().split('\n').at(-1))
  const worst = Math.max(...ours.losses.map((loss, i) => Math.abs(loss - theirs.losses[i])))
  const ends = [ours.losses[0], ours.losses.at(-1)].map((loss) => loss.toFixed(4)).join(' to ')
  claim(`${STEPS} losses are those of PyTorch in ${DTYPE}`, worst < TOLERANCE, `${worst}; ${ends}`)
  const [here, there] = [speed(ours.seconds), speed(theirs.seconds)]
  process.stdout.write(
    `${DTYPE}, ${THREADS} threads: ${here.toFixed(0)} tokens/s, PyTorch ${there.toFixed(0)}: ` +
      `${(here / there).toFixed(2)} x; peak ${ours.peak.toFixed(0)} MiB, ` +
      `PyTorch ${theirs.peak_rss_mib.toFixed(0)}: ${(ours.peak / theirs.peak_rss_mib).toFixed(2)} x\n`,
  )
}

campaign(main)
