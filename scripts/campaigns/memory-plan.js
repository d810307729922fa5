/**
 * Compares the memory that `account` plans with the peak of training on this CPU: resident memory
 * after two steps of AdamW, less that of the process before the model was built. Each case runs in a
 * process of its own. A claim holds within 5%.
 *
 * Usage: node scripts/campaigns/memory-plan.js [--only NAME]
 */
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { claim, campaign, memoryMib, option, root } = require('./claims')

const TOLERANCE = 0.05
const MIB = 2 ** 20

/** Presets, each with the options that override it. */
const CASES = [
  ['char', { batchSize: 96 }],
  ['char', { batchSize: 96, dtype: 'bf16' }],
  ['char', { batchSize: 96, recompute: true }],
  ['char', { batchSize: 12, context: 512 }],
  ['tinystories', { batchSize: 8 }],
  ['tinystories', { batchSize: 8, dtype: 'bf16' }],
  ['tinystories', { batchSize: 8, recompute: true }],
  ['tinystories', { batchSize: 8, dtype: 'bf16', recompute: true }],
  ['tinystories', { batchSize: 2, context: 1024, numKvHeads: 4 }],
  ['seed', { batchSize: 2 }],
  ['seed', { batchSize: 2, dtype: 'bf16' }],
  ['seed', { batchSize: 8, recompute: true }],
  ['seed', { batchSize: 2, tieEmbeddings: true, qkvBias: true, qkNorm: true }],
  ['gpt2-small-bench', { batchSize: 1, recompute: true }],
]

function sizesOf([name, more]) {
  const { PRESETS } = require(path.join(root, 'dist', 'training', 'presets.js'))
  const preset = PRESETS[name]
  return {
    vocabSize: preset.vocab_size,
    dModel: preset.d_model,
    numHeads: preset.num_heads,
    dFf: preset.d_ff,
    numLayers: preset.num_layers,
    context: preset.context,
    ...more,
  }
}

/** Trains two steps and prints the peak of resident memory above that before the model. */
async function measure(sizes) {
  const { AdamW, Transformer, account } = require(path.join(root, 'dist'))
  const { context, batchSize, ...model } = sizes
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'kindling-memory-'))
  try {
    const store = await storeOf(path.join(folder, 'case'), model.vocabSize)
    const planned = account(sizes).memory.total
    // Run a step first: the pages of the addon's code that it loads are not memory of the model.
    const tiny = new Transformer({ ...TINY, dtype: sizes.dtype, maxSeqLength: 16 })
    const tinyStore = await storeOf(path.join(folder, 'tiny'), TINY.vocabSize)
    await train(tiny, new AdamW(tiny), tinyStore, { batchSize: 2, seqLength: 16 })
    await tiny.close()
    const before = memoryMib('VmRSS')
    const transformer = new Transformer({ ...model, maxSeqLength: context })
    const sizesOfBatch = { batchSize, seqLength: context }
    await train(transformer, new AdamW(transformer), store, sizesOfBatch)
    const peak = memoryMib('VmHWM') - before
    process.stdout.write(`${JSON.stringify({ planned: planned / MIB, peak })}\n`)
  } finally {
    fs.rmSync(folder, { recursive: true, force: true })
  }
}

/** A model that takes hardly any memory. */
const TINY = { vocabSize: 64, dModel: 16, numHeads: 2, dFf: 24, numLayers: 1 }

function storeOf(folder, vocabSize) {
  const { TokenStore } = require(path.join(root, 'dist'))
  const ids = Int32Array.from({ length: 65_536 }, (_, i) => (i * i + 7 * i) % vocabSize)
  fs.mkdirSync(folder)
  fs.writeFileSync(path.join(folder, 'encoded_tokens_chunk_0.dat'), ids)
  return TokenStore.open(folder)
}

async function train(model, optimizer, store, batch) {
  for (let step = 1; step <= 2; step++) {
    await model.forwardBackward(store.batch({ ...batch, step }))
    await optimizer.clipGradNorm(1)
    await optimizer.step({ lr: 1e-3 })
  }
}

function compare() {
  const only = option('only')
  for (const [name, more] of CASES) {
    if (only !== undefined && name !== only) continue
    const sizes = sizesOf([name, more])
    const child = spawnSync(process.execPath, [__filename, '--case', JSON.stringify(sizes)])
    const what = `${name} ${Object.entries(more).flat().join(' ')}`
    if (child.status !== 0) {
      claim(what, false, child.stderr.toString())
      continue
    }
    const { planned, peak } = JSON.parse(child.stdout.toString())
    const off = planned / peak - 1
    const figures = `planned ${planned.toFixed(1)} MiB, measured ${peak.toFixed(1)} MiB`
    claim(what, Math.abs(off) <= TOLERANCE, `${figures}, ${(100 * off).toFixed(1)}%`)
  }
}

const given = option('case')
if (given === undefined) void campaign(async () => compare())
else void measure(JSON.parse(given))
