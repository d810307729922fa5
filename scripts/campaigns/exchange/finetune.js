/**
 * Fine-tunes SmolLM2-135M-Instruct (GGUF) on the same batches here and in PyTorch, and compares
 * losses, speed and peak memory. Both start from f32 weights, with AdamW on all parameters. They
 * alternate step by step, so that other load on the machine slows both. The first step of each is
 * not timed: it allocates memory, and compiles the peer's model.
 *
 * Usage: node scripts/campaigns/exchange/finetune.js [--steps 20] [--dtype f32|bf16] [--threads 2]
 * [--compile] [--text FILE]
 */
const { spawn } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const readline = require('node:readline')
const { campaign, claim, option, root, skip, text } = require('../claims')
const fetch = require('./fetch')

const { AdamW, load, peakRssMib } = require(path.join(root, 'dist'))
const STEPS = Number(option('steps', '20'))
const DTYPE = option('dtype', 'f32')
const THREADS = Number(option('threads', '2'))
const LR = 1e-5
const ROWS = 8
const TOKENS = 256
/** Largest difference of losses. In bf16, autocast rounds at other places than the engine does. */
const TOLERANCE = DTYPE === 'f32' ? 1e-3 : 2e-2

/** Cuts the ids of a text into batches of ROWS windows of TOKENS + 1. */
function batchesOf(ids) {
  const window = (n) => [...ids.slice(n * TOKENS, (n + 1) * TOKENS + 1)]
  return Array.from({ length: STEPS }, (_, step) =>
    Array.from({ length: ROWS }, (__, row) => window(step * ROWS + row)),
  )
}

/**
 * Loads the model in Kindling. Returns the batches, and a function that trains on one and resolves
 * to its loss, time and peak memory.
 */
async function openHere(file) {
  const { model, tokenizer } = await load(file, { dtype: DTYPE, threads: THREADS })
  const corpus = fs.readFileSync(option('text', text), 'utf8').slice(0, 4_000_000)
  const batches = batchesOf(await tokenizer.encode(corpus))
  const optimizer = new AdamW(model, { weightDecay: 0.01, betas: [0.9, 0.95] })
  const step = async (batch) => {
    const started = performance.now()
    const x = batch.map((row) => Int32Array.from(row.slice(0, -1)))
    const y = batch.map((row) => Int32Array.from(row.slice(1)))
    const { loss } = await model.forwardBackward({ x, y })
    await optimizer.clipGradNorm(1)
    await optimizer.step({ lr: LR })
    return { loss, seconds: (performance.now() - started) / 1000, peak: peakRssMib() }
  }
  return { batches, step }
}

/**
 * Starts PyTorch in a child process. Returns a function that trains on a batch, and one that ends
 * the child.
 */
function openPeer(python, file) {
  const child = spawn(python, [path.join(__dirname, 'finetune_peer.py')], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, CUDA_VISIBLE_DEVICES: '' },
  })
  const answers = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const send = (value) => child.stdin.write(`${JSON.stringify(value)}\n`)
  const compile = process.argv.includes('--compile')
  send({ model: file, lr: LR, dtype: DTYPE, threads: THREADS, compile })
  const step = async (batch) => {
    send(batch)
    const { value, done } = await answers.next()
    if (done) throw new Error('the peer has ended')
    const { loss, seconds, peak_rss_mib: peak } = JSON.parse(value)
    return { loss, seconds, peak }
  }
  return { step, close: () => child.stdin.end() }
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1]

/** Returns the tokens per second of the median step, not counting the first. */
const speed = (steps) => (ROWS * TOKENS) / median(steps.slice(1).map(({ seconds }) => seconds))

async function main() {
  const [python, file] = [fetch.python(), fetch.smollm2()]
  if (python === null || file === null)
    return skip('fine-tuning SmolLM2', python === null ? 'no transformers' : 'no model')
  const here = await openHere(file)
  const peer = openPeer(python, file)
  const [ours, theirs] = [[], []]
  for (const batch of here.batches) {
    ours.push(await here.step(batch))
    theirs.push(await peer.step(batch))
  }
  peer.close()
  const worst = Math.max(...ours.map(({ loss }, i) => Math.abs(loss - theirs[i].loss)))
  const ends = [ours[0], ours.at(-1)].map(({ loss }) => loss.toFixed(4)).join(' to ')
  claim(`${STEPS} losses are those of PyTorch in ${DTYPE}`, worst < TOLERANCE, `${worst}; ${ends}`)
  const [fast, slow] = [speed(ours), speed(theirs)]
  const [memory, most] = [ours.at(-1).peak, theirs.at(-1).peak]
  process.stdout.write(
    `${DTYPE}, ${THREADS} threads: ${fast.toFixed(0)} tokens/s, PyTorch ${slow.toFixed(0)}: ` +
      `${(fast / slow).toFixed(2)} x; peak ${memory.toFixed(0)} MiB, ` +
      `PyTorch ${most.toFixed(0)}: ${(memory / most).toFixed(2)} x\n`,
  )
}

campaign(main)
