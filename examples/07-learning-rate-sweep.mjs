// Finds a learning rate: the same short run at several rates. A rate that diverges is stopped early;
// a sweep that is killed goes on where it was when it is started again.
//
//   node examples/07-learning-rate-sweep.mjs [book.txt]
//
// `kindling sweep` does the same and draws it.
import { fileURLToPath } from 'node:url'
import { sweep } from 'kindling'

const packageFile = import.meta.resolve('kindling/package.json')
const book = process.argv[2] ?? fileURLToPath(new URL('assets/moby-dick.txt', packageFile))

const { results, out } = await sweep(
  {
    rates: [1e-4, 1e-3, 1e-2, 1],
    steps: Number(process.env.STEPS ?? 100),
    onResult: ({ lr, loss, valLoss, diverged, reason }) =>
      console.log(
        `lr ${lr}:`,
        diverged
          ? `diverged (${reason})`
          : `loss ${loss.toFixed(3)}, validation ${valLoss?.toFixed(3)}`,
      ),
  },
  // The options of the runs, as `Trainer` takes them.
  {
    corpus: book,
    vocabSize: 500,
    dModel: 64,
    numHeads: 4,
    dFf: 172,
    numLayers: 2,
    seqLength: 64,
    maxSeqLength: 64,
    batchSize: 8,
    evalTokens: 8192,
  },
)

const best = results
  .filter(({ diverged }) => !diverged)
  .toSorted((a, b) => (a.valLoss ?? a.loss) - (b.valLoss ?? b.loss))[0]
console.log(`best: lr ${best.lr}; look at the curves with: kindling dashboard ${out}`)
