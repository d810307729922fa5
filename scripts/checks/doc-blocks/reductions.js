/**
 * Replacements in the commands of each page that make them run in seconds: [from, to], where `from`
 * is a text or a pattern. Every replacement has to change something. `prepare` runs before the
 * page's blocks.
 */

const SMALL_STEPS = [/--max-steps \d+/g, '--max-steps 4 --batch-size 2 --eval-tokens 256']

/** Makes data/tokenizer, data/small and runs/small. */
const SMALL_RUN = `
  kindling tokenizer train corpus.txt --vocab-size 300 --out data/tokenizer
  kindling encode corpus.txt --tokenizer data/tokenizer --out data/small --valid-fraction 0.1
  kindling train --data data/small --preset char --max-steps 2 --batch-size 2 --run runs/small`

const BOOK = `
  kindling tokenizer train book.txt --vocab-size 300 --out data/tokenizer
  kindling encode book.txt --tokenizer data/tokenizer --out data/book --valid-fraction 0.1`

/** Makes runs/mine and smollm2.gguf: a small model with the tokens of ChatML. */
const SMALL_CHAT = `
  kindling tokenizer train corpus.txt --vocab-size 300 \\
    --special-tokens '<|endoftext|>' '<|im_start|>' '<|im_end|>' --out data/tokenizer
  kindling encode corpus.txt --tokenizer data/tokenizer --out data/small --valid-fraction 0.1
  kindling train --data data/small --preset char --max-steps 2 --batch-size 2 --run runs/mine
  kindling export runs/mine --format gguf --out smollm2.gguf`

const TINY_MODEL = [
  '--preset tinystories --max-steps 2000',
  '--preset char --seq-length 16 --max-steps 2 --batch-size 2 --eval-tokens 256',
]

/** Training on a corpus without further options takes ten minutes. */
const SMALL_AUTO = [
  'train corpus.txt --run',
  'train corpus.txt --preset char --vocab-size 300 --max-steps 4 --batch-size 2 --eval-tokens 256 --run',
]

const PAGES = {
  'README.md': {
    replace: [
      SMALL_AUTO,
      SMALL_STEPS,
      ['--sampling epoch', '--sampling epoch --preset char --max-steps 2 --batch-size 2'],
      ['vocabSize: 10_000', 'vocabSize: 400'],
      [
        'dModel: 512, numHeads: 16, dFf: 1344, numLayers: 4',
        'dModel: 32, numHeads: 2, dFf: 48, numLayers: 1',
      ],
      ['2_000', '4'],
      ['warmupSteps: 100', 'warmupSteps: 1'],
      ['batchSize: 32', 'batchSize: 2'],
      [
        'model.freeze(',
        'const ids = tokenizer.encode("The whale")\nconst gradientOfMyLoss = (x: Float32Array) => x\nmodel.freeze(',
      ],
    ],
    // A model of another program, and data encoded with its tokenizer.
    prepare: `${SMALL_RUN}
      kindling export runs/small --format hf --out models/SmolLM2-135M
      kindling encode corpus.txt --tokenizer models/SmolLM2-135M --out data/mine --valid-fraction 0.1
      rm -r data/small data/tokenizer runs/small`,
  },
  'examples/README.md': { replace: [['node examples', 'STEPS=2 node examples']] },
  'docs/errors.md': {
    replace: [['--max-steps 20 --run', '--max-steps 20 --batch-size 2 --eval-tokens 256 --run']],
  },
  'docs/guides/run-clm.md': {
    replace: [
      ['--vocab-size 32000 --out', '--vocab-size 400 --out'],
      [
        /scripts\/run_clm\.sh( --max-steps 10)?/g,
        'scripts/run_clm.sh --d-model 16 --num-heads 2 --d-ff 24 --num-layers 1 --batch-size 2 --max-steps 2',
      ],
    ],
  },
  'docs/guides/your-own-corpus.md': {
    replace: [
      ['--run runs/book\n', '--max-steps 2 --eval-tokens 256 --run runs/book\n'],
      ['--run runs/both', '--max-steps 1 --eval-tokens 256 --run runs/both'],
      ['--run runs/web', '--max-steps 1 --eval-tokens 256 --run runs/web'],
      ['--max-steps 100 --seed', '--max-steps 1 --eval-tokens 256 --seed'],
      [
        '--vocab-size 1000 --max-steps 10',
        '--vocab-size 300 --max-steps 1 --batch-size 1 --eval-tokens 256 --sample-interval 0',
      ],
      ['eval runs/book', 'eval runs/book --eval-tokens 256'],
    ],
    prepare: 'mkdir -p notes && cp corpus.txt notes/a.md',
  },
  'docs/guides/data-at-scale.md': {
    replace: [['--vocab-size 32000', '--vocab-size 300'], TINY_MODEL],
  },
  'docs/guides/resume.md': {
    replace: [
      [
        '--max-steps 200 --save-interval 50',
        '--max-steps 200 --save-interval 50 --batch-size 1 --seq-length 16 --eval-tokens 64 --sample-interval 0',
      ],
      [
        '--lr 3e-5 --max-steps 100',
        '--lr 3e-5 --max-steps 2 --batch-size 1 --seq-length 16 --eval-tokens 64',
      ],
    ],
    prepare: BOOK,
  },
  'docs/guides/custom-loops.md': {
    replace: [
      ['vocabSize: 1000', 'vocabSize: 300'],
      [
        'dModel: 128, numHeads: 4, dFf: 344, numLayers: 4',
        'dModel: 16, numHeads: 2, dFf: 24, numLayers: 1',
      ],
      ['steps: 200', 'steps: 2, batchSize: 2'],
      ['schedule, steps }', 'schedule, steps: 2, batchSize: 2 }'],
      ['step <= 100', 'step <= 2'],
    ],
  },
  'docs/guides/fine-tune.md': {
    replace: [
      ['--seq-length 256', '--seq-length 32'],
      ['--max-steps 20', '--max-steps 2'],
    ],
    prepare: `${SMALL_CHAT}
      rm -r runs/mine data/small`,
  },
  'docs/guides/hand-over.md': { prepare: SMALL_CHAT },
  'docs/guides/troubleshooting.md': {
    replace: [
      ['--steps 200', '--steps 2 --batch-size 2 --eval-tokens 256'],
      ['--steps 50', '--steps 2 --batch 1'],
    ],
    prepare: `${BOOK}
      kindling train --data data/book --preset char --max-steps 2 --batch-size 2 --run runs/book`,
  },
  'docs/start.md': { replace: [SMALL_AUTO] },
}

/** Returns the replacements of a page. */
function reductionsOf(page) {
  return { replace: [], ...PAGES[page] }
}

module.exports = { reductionsOf }
