// Stops a training run halfway, resumes it, and shows that nothing differs from a run that was never
// stopped: the losses are equal to the last bit.
//
//   node examples/02-resume.mjs [book.txt]
import { mkdirSync, mkdtempSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Trainer } from 'kindling'

const packageFile = import.meta.resolve('kindling/package.json')
const book = process.argv[2] ?? fileURLToPath(new URL('assets/moby-dick.txt', packageFile))
const steps = Number(process.env.STEPS ?? 200)
mkdirSync('runs', { recursive: true })
const folder = mkdtempSync('runs/resume-')

const options = {
  corpus: book,
  vocabSize: 500,
  dModel: 64,
  numHeads: 4,
  dFf: 172,
  numLayers: 2,
  seqLength: 64,
  maxSeqLength: 64,
  batchSize: 8,
  lr: 2e-3,
  maxSteps: steps,
}

// One run from start to end.
const whole = await new Trainer({ ...options, run: `${folder}/whole` }).run()

// The same in two parts. `stopAtStep` ends the process' work early and leaves the schedule of the
// learning rate as it is; Ctrl-C or `signal` in `run({ signal })` would do the same.
const run = `${folder}/parts`
const half = Math.ceil(steps / 2)
const first = await new Trainer({ ...options, run, stopAtStep: half }).run()
console.log(`stopped at step ${first.steps} of ${steps}`)

// A resumed run needs its folder only: its options are in config.json.
const trainer = new Trainer({ run, resume: true })
trainer.on('message', (text) => console.log(text))
const second = await trainer.run()

console.log('validation loss in one go: ', whole.valLoss)
console.log('validation loss in two parts:', second.valLoss)
if (whole.valLoss !== second.valLoss) throw new Error('the two runs differ')
console.log('equal to the last bit')
