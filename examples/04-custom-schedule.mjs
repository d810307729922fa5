// A learning rate of your own: any function of the step. This one warms up, stays, and falls along a
// square root at the end ("warmup-stable-decay", https://arxiv.org/abs/2404.06395).
//
//   node examples/04-custom-schedule.mjs [book.txt]
import { fileURLToPath } from 'node:url'
import { AdamW, TokenStore, Tokenizer, Transformer, train } from 'kindling'

const packageFile = import.meta.resolve('kindling/package.json')
const book = process.argv[2] ?? fileURLToPath(new URL('assets/moby-dick.txt', packageFile))
const steps = Number(process.env.STEPS ?? 300)

/** Learning rate of update `step`, which counts from 1. */
function schedule(step) {
  const [peak, warmup, decay] = [2e-3, 0.1 * steps, 0.2 * steps]
  if (step < warmup) return (peak * step) / warmup
  const left = steps - step
  return left >= decay ? peak : peak * Math.sqrt(left / decay)
}

const tokenizer = await Tokenizer.train([book], { vocabSize: 500 })
const store = await TokenStore.encode([book], tokenizer, 'data/custom-schedule_chunks')
const model = new Transformer({
  vocabSize: tokenizer.vocabSize,
  dModel: 64,
  numHeads: 4,
  dFf: 172,
  numLayers: 2,
  maxSeqLength: 64,
  seed: 1,
})
const optimizer = new AdamW(model, { weightDecay: 0.1 })

// The loop as an iterator: it reads batches ahead, clips, and calls the schedule.
const loop = train({ model, optimizer, store, schedule, steps, batchSize: 16 })
for await (const { step, loss, lr } of loop) {
  if (step % Math.ceil(steps / 10) !== 0) continue
  const bar = '#'.repeat(Math.round((40 * lr) / 2e-3))
  console.log(`step ${String(step).padStart(4)}  loss ${loss.toFixed(3)}  lr ${bar}`)
}
