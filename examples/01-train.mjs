// Trains a small model on a text file and lets it write.
//
//   node examples/01-train.mjs [book.txt]
//
// `Trainer` is `kindling train` as an object: its options have the names of the flags.
import { fileURLToPath } from 'node:url'
import { Trainer, generate, load } from 'kindling'

// Without a file of your own: Moby-Dick, which comes with the package.
const packageFile = import.meta.resolve('kindling/package.json')
const book = process.argv[2] ?? fileURLToPath(new URL('assets/moby-dick.txt', packageFile))

const trainer = new Trainer({
  // The text is encoded once, into data/, with a tokenizer of this many entries trained on it.
  corpus: book,
  vocabSize: 1000,
  // A model of about a million parameters.
  dModel: 128,
  numHeads: 4,
  dFf: 344,
  numLayers: 4,
  seqLength: 64,
  maxSeqLength: 64,
  // Each update sees 16 windows of 64 tokens.
  batchSize: 16,
  lr: 2e-3,
  maxSteps: Number(process.env.STEPS ?? 500),
  logInterval: 50,
})

// A line of metrics comes every `logInterval` updates; the last one has the validation loss.
trainer.on('metrics', ({ step, loss, valLoss }) => {
  console.log(
    `step ${step}: loss ${loss.toFixed(3)}`,
    valLoss ? `validation ${valLoss.toFixed(3)}` : '',
  )
})
const { run } = await trainer.run()

// A run folder holds everything that is needed to use the model.
const { model, tokenizer } = await load(run)
for await (const text of generate(model, tokenizer, 'The whale', { maxTokens: 80, seed: 1 })) {
  process.stdout.write(text)
}
console.log(`\n\nthe run is in ${run}`)
