/** Runs every script of examples/ at a small size, with the package imported by its own name. */
import { spawn, type ChildProcess } from 'node:child_process'
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { temporaryFolder, writeCorpus } from './helpers'

const EXAMPLES = join(__dirname, '..', 'examples')
const SCRIPTS = readdirSync(EXAMPLES).filter((name) => name.endsWith('.mjs'))

interface Place {
  folder: string
  corpus: string
}

function place(t: ExecutionContext): Place {
  const folder = temporaryFolder(t)
  return { folder, corpus: writeCorpus(folder) }
}

function start({ folder }: Place, name: string, args: string[], more: object = {}): ChildProcess {
  return spawn(process.execPath, [join(EXAMPLES, name), ...args], {
    cwd: folder,
    env: { ...process.env, STEPS: '6', SIZES: '300,280', PORT: '0', ...more },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

/** Runs a script to its end; returns what it prints. */
async function run(t: ExecutionContext, at: Place, name: string, args: string[]): Promise<string> {
  const child = start(at, name, args)
  let said = ''
  for (const stream of [child.stdout!, child.stderr!]) {
    stream.setEncoding('utf8').on('data', (text: string) => (said += text))
  }
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve))
  t.is(code, 0, `${name}: ${said}`)
  return said
}

test('there are ten scripts, each under 80 lines and in the list', (t) => {
  t.is(SCRIPTS.length, 10)
  const list = readFileSync(join(EXAMPLES, 'README.md'), 'utf8')
  for (const name of SCRIPTS) {
    t.true(list.includes(`](${name})`), name)
    const lines = readFileSync(join(EXAMPLES, name), 'utf8').trimEnd().split('\n')
    t.true(lines.length < 80 && lines[0]!.startsWith('// '), name)
  }
})

test('train, then draw the chart of the run', async (t) => {
  const at = place(t)
  const said = await run(t, at, '01-train.mjs', [at.corpus])
  t.regex(said, /step 6: loss \d\.\d+ validation \d\.\d+\nThe whale/)
  const folder = /the run is in (\S+)/.exec(said)![1]!
  await run(t, at, '08-chart.mjs', [folder, 'chart.svg'])
  const svg = readFileSync(join(at.folder, 'chart.svg'), 'utf8')
  t.regex(svg, /^<svg xmlns.*<path d="M[\d.]+ [\d.]+.*step 6<\/text>\n<\/svg>\n$/s)
})

test('a resumed run is equal to the last bit', async (t) => {
  const at = place(t)
  t.regex(await run(t, at, '02-resume.mjs', [at.corpus]), /stopped at step 3 of 6.*last bit\n$/s)
})

test('a custom loop saves a checkpoint', async (t) => {
  const at = place(t)
  t.regex(await run(t, at, '03-custom-loop.mjs', [at.corpus]), /step 6: loss \d.*validation \d/)
  t.true(existsSync(join(at.folder, 'data/custom-loop/checkpoint/model.safetensors')))
})

test('a custom schedule falls at the end', async (t) => {
  const at = place(t)
  const said = await run(t, at, '04-custom-schedule.mjs', [at.corpus])
  const bars = said
    .trimEnd()
    .split('\n')
    .map((line) => line.replace(/[^#]/g, '').length)
  t.deepEqual(bars, [40, 40, 40, 40, 37, 0])
})

test('a mixture is evaluated on each of its parts', async (t) => {
  const at = place(t)
  const other = join(EXAMPLES, '..', 'src', 'generate.ts')
  const said = await run(t, at, '05-mixture.mjs', [at.corpus, other])
  t.regex(said, /prose: validation loss \d.* bits per byte\ncode: validation loss \d/)
})

test('a tokenizer study has a line per size', async (t) => {
  const at = place(t)
  const said = await run(t, at, '06-tokenizer-study.mjs', [at.corpus])
  t.regex(said, /^ +300 +\d+\.\d{3} .*\n +280 +\d+\.\d{3} .*$/m)
})

test('a sweep names the best rate', async (t) => {
  const at = place(t)
  const said = await run(t, at, '07-learning-rate-sweep.mjs', [at.corpus])
  t.regex(said, /lr 0\.0001: loss .*lr 1: .*best: lr 0\.01;/s)
})

test('a server trains in a worker and streams text', async (t) => {
  const at = place(t)
  const child = start(at, '09-server.mjs', [at.corpus])
  t.teardown(() => child.kill('SIGKILL'))
  let said = ''
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (said += text))
  const url = await new Promise<string>((resolve, reject) => {
    child.stdout!.setEncoding('utf8').on('data', (text: string) => resolve(text.trim()))
    child.on('close', () => reject(new Error(`the server ended: ${said}`)))
  })
  for (;;) {
    const status = (await (await fetch(url)).json()) as { state: string; metrics: object | null }
    if (status.state === 'ready') break
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  const answers = await Promise.all(
    ['The', 'whale'].map(async (prompt) =>
      (await fetch(new URL(`/generate?prompt=${prompt}`, url))).text(),
    ),
  )
  t.true(answers[0]!.startsWith('The') && answers[1]!.startsWith('whale'))
  t.is((await fetch(new URL('/other', url))).status, 404)
})

test('gradients agree with finite differences', async (t) => {
  const said = await run(t, place(t), '10-gradient-check.mjs', [])
  t.is([...said.matchAll(/relative error [\d.]+e-\d/g)].length, 4)
})
