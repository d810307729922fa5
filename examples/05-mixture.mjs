// Trains on a mixture of two texts, four windows of the first for each of the second, and measures
// the loss on both.
//
//   node examples/05-mixture.mjs [prose.txt code.txt]
import { fileURLToPath } from 'node:url'
import { AdamW, TokenStore, Tokenizer, Transformer, evaluate, train } from 'kindling'

// Without files of your own: Moby-Dick, and the type declarations of the addon.
const packageFile = import.meta.resolve('kindling/package.json')
const fromPackage = (path) => fileURLToPath(new URL(path, packageFile))
const prose = process.argv[2] ?? fromPackage('assets/moby-dick.txt')
const code = process.argv[3] ?? fromPackage('index.d.ts')
const steps = Number(process.env.STEPS ?? 300)
const [batchSize, seqLength] = [16, 64]

// One tokenizer for both: stores of a mixture share their vocabulary.
const tokenizer = await Tokenizer.train([prose, code], { vocabSize: 1000 })

/** Encodes a file; its last tenth is for validation. */
async function encode(file, name) {
  const options = { validFraction: 0.1 }
  const paths = await TokenStore.encodeFiles([file], tokenizer, `data/mixture/${name}`, options)
  return { train: await TokenStore.open(paths.train), valid: await TokenStore.open(paths.valid) }
}
const stores = { prose: await encode(prose, 'prose'), code: await encode(code, 'code') }

const model = new Transformer({
  vocabSize: tokenizer.vocabSize,
  dModel: 128,
  numHeads: 4,
  dFf: 344,
  numLayers: 2,
  maxSeqLength: seqLength,
  seed: 1,
})
const loop = train({
  model,
  optimizer: new AdamW(model),
  // The weights are shares of the windows; they need not add up to 1.
  store: [
    { store: stores.prose.train, weight: 0.8 },
    { store: stores.code.train, weight: 0.2 },
  ],
  // Every window of a store comes once before any comes again.
  sampling: 'epoch',
  schedule: () => 1e-3,
  steps,
  batchSize,
})
for await (const { step, loss } of loop) {
  if (step % Math.ceil(steps / 5) !== 0) continue
  console.log(`step ${step}: loss of the mixture ${loss.toFixed(3)}`)
}

for (const [name, { valid }] of Object.entries(stores)) {
  const { loss, bitsPerByte } = await evaluate(model, valid, { batchSize, seqLength })
  console.log(
    `${name}: validation loss ${loss.toFixed(3)}, ${bitsPerByte?.toFixed(3)} bits per byte`,
  )
}
