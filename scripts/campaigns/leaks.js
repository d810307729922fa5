/**
 * Opens and closes every native object many times, and trains many steps; checks that the resident
 * memory stays within 1 MiB of what it was after a warm-up.
 *
 * Usage: node scripts/campaigns/leaks.js [--cycles 1000] [--steps 10000]
 */
const { root, text, claim, campaign, option } = require('./claims')
const { ALLOWED_MIB, growth, settledMib, underSteadyMemory } = require('./steady-memory')
const fs = require('node:fs')
const path = require('node:path')

const SIZES = {
  ...{ vocabSize: 300, dModel: 32, numHeads: 4, dFf: 64, numLayers: 2, maxSeqLength: 32 },
  threads: 1,
}
/** Calls between two garbage collections, which free objects without `close`. */
const COLLECT_EVERY = 10
/** Minimum number of warm-up calls: the allocator's pools and compiled JavaScript grow slowly. */
const WARM_UP = 500
const ATTEMPTS = 3

/** Runs `work` for a warm-up, then `count` times; returns the growth in MiB between the two. */
async function growthOf(count, work) {
  const repeat = async (times) => {
    for (let i = 0; i < times; i++) {
      await work(i)
      if (i % COLLECT_EVERY === 0) {
        globalThis.gc()
        await new Promise((resolve) => setImmediate(resolve))
      }
    }
  }
  await repeat(Math.max(WARM_UP, count / 2))
  const span = async () => {
    await repeat(count)
    return settledMib()
  }
  return (await growth(await settledMib(), span, ATTEMPTS)).grown
}

async function main(folder) {
  const kindling = require(path.join(root, 'dist'))
  const { AdamW, BatchLoader, Checkpoint, Sgd, TokenStore, Tokenizer, Transformer } = kindling
  const cycles = Number(option('cycles', '1000'))
  const steps = Number(option('steps', '10000'))
  const corpus = path.join(folder, 'corpus.txt')
  fs.writeFileSync(corpus, fs.readFileSync(text, 'utf8').slice(0, 100_000))
  const made = await Tokenizer.train([corpus], { vocabSize: SIZES.vocabSize })
  const tokenizer = path.join(folder, 'tokenizer')
  await made.save(tokenizer)
  const data = path.join(folder, 'data')
  await TokenStore.encodeFiles([corpus], made, data, { chunkSize: 10_000 })
  const storePath = path.join(data, 'train_chunks')
  const store = await TokenStore.open(storePath)
  const windows = { batchSize: 4, seqLength: 32 }
  const model = new Transformer(SIZES)
  const optimizer = new AdamW(model)
  const step = async (number) => {
    await model.forwardBackward(await loader.next({ step: number + 1 }))
    await optimizer.clipGradNorm(1)
    await optimizer.step({ lr: 1e-3 })
  }
  const loader = new BatchLoader(store, windows)
  await step(0)
  const checkpoint = path.join(folder, 'checkpoint')
  await Checkpoint.save(checkpoint, model, optimizer, 1)

  const objects = {
    Transformer: async () => {
      const opened = new Transformer(SIZES)
      await opened.forwardBackward(store.batch({ ...windows, step: 1 }))
      await opened.close()
    },
    AdamW: async () => {
      const opened = new AdamW(model)
      await opened.clipGradNorm(1)
      await opened.close()
    },
    Sgd: async () => {
      const opened = new Sgd(model)
      await opened.clipGradNorm(1)
      await opened.close()
    },
    Tokenizer: async () => (await Tokenizer.open(tokenizer)).encode('Call me Ishmael.'),
    TokenStore: async () => (await TokenStore.open(storePath)).batch({ ...windows, step: 1 }),
    BatchLoader: async () => {
      const opened = new BatchLoader(store, windows)
      await opened.next({ step: 1 })
      opened.close()
    },
    'loaded checkpoint': async () => Checkpoint.load(checkpoint, model, optimizer),
    snapshot: async () => (await Checkpoint.snapshot(model, optimizer, 1)).close(),
  }
  for (const [name, work] of Object.entries(objects)) {
    const mib = await growthOf(cycles, work)
    claim(`${cycles} of ${name} leave no memory`, mib < ALLOWED_MIB, `${mib.toFixed(2)} MiB`)
  }
  const mib = await growthOf(steps, step)
  claim(`${steps} steps leave no memory`, mib < ALLOWED_MIB, `${mib.toFixed(2)} MiB`)
}

underSteadyMemory(() => campaign(main))
