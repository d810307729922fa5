/**
 * Tests the packed packages: installs them into an empty project, without Rust on PATH, and trains
 * and generates there from CommonJS, ESM and TypeScript, and with `npx kindling`. Prints a line per
 * check and ends with `N passed, N failed`. Usage: npm run package-test (which builds and packs
 * first).
 */
const { execFileSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')

const root = path.join(__dirname, '..')
const packages = path.join(root, 'target', 'packages')
const project = fs.mkdtempSync(path.join(os.tmpdir(), 'kindling-package-'))

/** Returns PATH without the folders that hold Rust tools, but with that of node. */
function pathWithoutRust() {
  const folders = (process.env.PATH ?? '').split(path.delimiter)
  const clean = folders.filter(
    (folder) => !['cargo', 'rustc'].some((tool) => fs.existsSync(path.join(folder, tool))),
  )
  return [path.dirname(process.execPath), ...clean].join(path.delimiter)
}

function run(command, args) {
  const env = { ...process.env, PATH: pathWithoutRust(), CARGO_HOME: '', RUSTUP_HOME: '' }
  return execFileSync(command, args, {
    cwd: project,
    env,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

const PROGRAM = `
async function main() {
  const sizes = { vocabSize: 300, dModel: 32, numHeads: 4, dFf: 48, numLayers: 2, maxSeqLength: 32 }
  const tokenizer = await Tokenizer.train(['corpus.txt'], { vocabSize: 300, specialTokens: ['<|endoftext|>'] })
  const store = await TokenStore.encode(['corpus.txt'], tokenizer, 'data/corpus_chunks')
  const model = new Transformer({ ...sizes, seed: 1 })
  const optimizer = new AdamW(model, { weightDecay: 0.1, betas: [0.9, 0.95] })
  const schedule = cosineSchedule({ lrMax: 1e-2, lrMin: 1e-3, warmupSteps: 2, cosineSteps: 10 })
  const losses = []
  for (let step = 1; step <= 10; step++) {
    const { loss } = await model.forwardBackward(store.batch({ batchSize: 4, seqLength: 32, seed: 1, step }))
    await optimizer.clipGradNorm(1.0)
    await optimizer.step({ lr: schedule(step) })
    losses.push(loss)
  }
  if (!(losses[9] < losses[0])) throw new Error('the loss did not fall: ' + losses.join(' '))
  let text = ''
  for await (const piece of generate(model, tokenizer, 'Call me', { maxTokens: 8, seed: 1 })) text += piece
  if (!text.startsWith('Call me')) throw new Error('the text does not begin with the prompt: ' + text)
}
main().then(() => console.log('trained and generated'), (error) => { console.error(error); process.exitCode = 1 })
`
const NAMES = 'Tokenizer, TokenStore, Transformer, AdamW, cosineSchedule, generate'

function checks() {
  const typed = PROGRAM.replace('const losses = []', 'const losses: number[] = []')
    .replace('losses[9] < losses[0]', 'losses[9]! < losses[0]!')
    .replace('(error)', '(error: unknown)')
  const files = {
    'corpus.txt': 'Call me Ishmael. Some years ago, never mind how long precisely. '.repeat(200),
    'program.cjs': `const { ${NAMES} } = require('kindling')\n${PROGRAM}`,
    'program.mjs': `import { ${NAMES} } from 'kindling'\n${PROGRAM}`,
    'program.ts': `import { ${NAMES} } from 'kindling'\n${typed}`,
    'tsconfig.json': JSON.stringify({
      compilerOptions: {
        target: 'ES2022',
        lib: ['ES2023'],
        module: 'node16',
        strict: true,
        noUncheckedIndexedAccess: true,
        skipLibCheck: false,
        types: ['node'],
        typeRoots: [path.join(root, 'node_modules', '@types')],
        outDir: 'built',
      },
      include: ['program.ts'],
    }),
  }
  for (const [name, text] of Object.entries(files)) fs.writeFileSync(path.join(project, name), text)
  const tsc = path.join(root, 'node_modules', 'typescript', 'bin', 'tsc')
  return [
    ['a CommonJS program trains and generates', () => run('node', ['program.cjs'])],
    ['an ESM program trains and generates', () => run('node', ['program.mjs'])],
    [
      'a TypeScript program compiles, trains and generates',
      () => {
        run('node', [tsc, '-p', '.'])
        return run('node', ['built/program.js'])
      },
    ],
    ['npx kindling --version works', () => run('npx', ['--no-install', 'kindling', '--version'])],
    [
      'no Rust tool was on PATH',
      () => {
        for (const folder of pathWithoutRust().split(path.delimiter)) {
          if (fs.existsSync(path.join(folder, 'cargo'))) throw new Error(`cargo is in ${folder}`)
        }
      },
    ],
  ]
}

function main() {
  const tarballs = fs
    .readdirSync(packages)
    .filter((name) => name.endsWith('.tgz'))
    .map((name) => path.join(packages, name))
  fs.writeFileSync(path.join(project, 'package.json'), '{ "name": "project", "private": true }\n')
  run('npm', ['install', '--no-audit', '--no-fund', '--prefer-offline', ...tarballs])
  const counts = { passed: 0, failed: 0 }
  for (const [claim, check] of checks()) {
    try {
      check()
      counts.passed++
      process.stdout.write(`ok ${claim}\n`)
    } catch (error) {
      counts.failed++
      process.stdout.write(`not ok ${claim}\n${error.stdout ?? ''}${error.stderr ?? error.stack}\n`)
    }
  }
  fs.rmSync(project, { recursive: true, force: true })
  process.stdout.write(`${counts.passed} passed, ${counts.failed} failed\n`)
  process.exitCode = counts.failed > 0 ? 1 : 0
}

main()
