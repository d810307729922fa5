// The training loop by hand: batches, gradients, clipping, update, validation, checkpoint.
//
//   node examples/03-custom-loop.mjs [book.txt]
import { fileURLToPath } from 'node:url'
import {
  AdamW,
  Checkpoint,
  TokenStore,
  Tokenizer,
  Transformer,
  cosineSchedule,
  evaluate,
} from 'kindling'

const packageFile = import.meta.resolve('kindling/package.json')
const book = process.argv[2] ?? fileURLToPath(new URL('assets/moby-dick.txt', packageFile))
const steps = Number(process.env.STEPS ?? 300)
const [batchSize, seqLength] = [16, 64]

// Text to tokens: byte-level BPE, then a store of ids on disk; a twentieth is kept for validation.
const tokenizer = await Tokenizer.train([book], { vocabSize: 1000 })
const { train, valid } = await TokenStore.encodeFiles([book], tokenizer, 'data/custom-loop', {
  validFraction: 0.05,
})
const store = await TokenStore.open(train)
const validStore = await TokenStore.open(valid)

const model = new Transformer({
  vocabSize: tokenizer.vocabSize,
  dModel: 128,
  numHeads: 4,
  dFf: 344,
  numLayers: 4,
  maxSeqLength: seqLength,
  seed: 1,
})
const optimizer = new AdamW(model, {
  weightDecay: 0.1,
  betas: [0.9, 0.95],
  // The gains of the norms are not decayed.
  groups: [{ pattern: '*.g', weightDecay: 0 }],
})
const schedule = cosineSchedule({
  lrMax: 2e-3,
  lrMin: 2e-4,
  warmupSteps: Math.floor(steps / 10),
  cosineSteps: steps,
})
console.log(`${model.numParameters} parameters, ${store.length} training tokens`)

for (let step = 1; step <= steps; step++) {
  // The windows of a batch are a function of the seed and the step.
  const batch = store.batch({ batchSize, seqLength, seed: 1, step })
  // Adds to the gradients; `optimizer.step` uses and clears them.
  const { loss } = await model.forwardBackward(batch)
  const gradNorm = await optimizer.clipGradNorm(1.0)
  await optimizer.step({ lr: schedule(step) })
  if (step % 50 === 0 || step === steps) {
    const limits = { batchSize, seqLength, maxTokens: 16_384 }
    const { loss: valLoss } = await evaluate(model, validStore, limits)
    const figures = [loss, valLoss, gradNorm].map((value) => value.toFixed(3))
    console.log(`step ${step}: loss ${figures[0]}, validation ${figures[1]}, norm ${figures[2]}`)
  }
}

// Weights and optimizer; `Checkpoint.load` returns the step to go on from.
await Checkpoint.save('data/custom-loop/checkpoint', model, optimizer, steps)
console.log('saved data/custom-loop/checkpoint')
