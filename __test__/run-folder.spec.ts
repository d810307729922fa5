/** The folder of a run: who trains in it, and which checkpoints it keeps and loads. */
import { execFileSync, spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import fsPromises from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { KindlingError, Trainer, type TrainerOptions } from '../src'
import { inspectRun } from '../src/runs/inspect'
import { MetricsReader } from '../src/runs/metrics-reader'
import { loadRun } from '../src/training/load-run'
import { RunCheckpoints } from '../src/training/run-checkpoints'
import { RunFolder } from '../src/training/run-folder'
import { RunLock } from '../src/training/run-lock'
import { kindling, succeed, words } from './command-line'
import { rejectsWith, temporaryFolder, writeCorpus } from './helpers'
import { encodeCorpus } from './small-runs'

const SMALL = {
  ...{ dModel: 16, numHeads: 4, dFf: 24, numLayers: 1, seqLength: 8, batchSize: 2, vocabSize: 280 },
  ...{ maxSteps: 12, logInterval: 1, saveInterval: 1, sampleInterval: 0, evalInterval: 0 },
  ...{ device: 'cpu', threads: 1 },
}

/** Trains a small run in a temporary folder; `more` changes its options. */
async function smallRun(t: ExecutionContext, more: TrainerOptions = {}): Promise<string> {
  const folder = temporaryFolder(t)
  const run = join(folder, 'run')
  await new Trainer({ ...SMALL, corpus: writeCorpus(folder), dataDir: folder, run, ...more }).run()
  return run
}

/** Resumes a run; returns its messages. */
async function resume(run: string, more: TrainerOptions = {}): Promise<string[]> {
  const messages: string[] = []
  const trainer = new Trainer({ run, resume: true, ...more })
  trainer.on('message', (text) => messages.push(text))
  await trainer.run()
  return messages
}

function checkpointsOf(run: string): string[] {
  return readdirSync(join(run, 'checkpoints')).sort()
}

function stepNames(...steps: number[]): string[] {
  return steps.map((step) => `step-${String(step).padStart(8, '0')}`)
}

function metricsSteps(run: string): number[] {
  const lines = readFileSync(join(run, 'metrics.jsonl'), 'utf8').trim().split('\n')
  return lines.map((line) => (JSON.parse(line) as { step: number }).step)
}

/** Returns a pid that no process has. */
function deadPid(): number {
  return spawnSync('true').pid
}

function writeLock(run: string, owner: Record<string, unknown>): void {
  const started = new Date(0).toISOString()
  const lock = { format_version: 1, id: 'other', pid: process.pid, host: hostname() }
  writeFileSync(
    join(run, 'lock'),
    JSON.stringify({ ...lock, started_at: started, process_start: null, ...owner }),
  )
}

test('a run that is being trained is refused with its process, and free again afterwards', async (t) => {
  const run = await smallRun(t)
  const trainer = new Trainer({ run, resume: true, stopAtStep: 12 })
  let refused: Promise<string> | undefined
  trainer.once('start', () => {
    refused = rejectsWith(t, 'ERR_RUN_LOCKED', () => resume(run))
  })
  await trainer.run()
  const message = await refused!
  t.regex(message, new RegExp(`process ${process.pid} on ${hostname()} .* since 2`))
  t.false(existsSync(join(run, 'lock')))
  await resume(run)
})

test('the lock of a dead process is taken over, one on another machine is not', async (t) => {
  const run = await smallRun(t)
  writeLock(run, { pid: deadPid() })
  t.regex((await resume(run))[0]!, /was killed while it trained in .*taking its lock over/)
  writeLock(run, { process_start: 'of an earlier process with the same pid' })
  t.regex((await resume(run))[0]!, /taking its lock over/)
  writeLock(run, { pid: deadPid(), host: 'elsewhere' })
  const message = await rejectsWith(t, 'ERR_RUN_LOCKED', () => resume(run))
  t.regex(message, /on elsewhere .*remove .*lock/)
  for (const damaged of ['', 'null', '{"pid": 1']) {
    writeFileSync(join(run, 'lock'), damaged)
    await rejectsWith(t, 'ERR_RUN_LOCKED', () => resume(run))
  }
  t.deepEqual(
    readdirSync(run).filter((name) => name.startsWith('lock')),
    ['lock'],
  )
})

test('a lock that someone removed and another process took is noticed', (t) => {
  const run = temporaryFolder(t)
  const lock = RunLock.take(run)
  lock.verify(run)
  rmSync(join(run, 'lock'))
  lock.verify(run)
  const other = RunLock.take(run)
  t.is(t.throws(() => lock.verify(run), { instanceOf: KindlingError })?.code, 'ERR_RUN_LOCKED')
  lock.release()
  other.verify(run)
  t.true(existsSync(join(run, 'lock')), 'it removes no lock of another')
  other.release()
  t.deepEqual(readdirSync(run), [])
})

test('only one of several new runs gets a name, and default names never clash', async (t) => {
  const folder = temporaryFolder(t)
  const path = join(folder, 'run')
  const claims = await Promise.allSettled(
    Array.from({ length: 8 }, () => RunFolder.claim(path, 'unused', () => {})),
  )
  const codes = claims.map((claim) =>
    claim.status === 'fulfilled' ? 'claimed' : (claim.reason as KindlingError).code,
  )
  t.is(codes.filter((code) => code === 'claimed').length, 1)
  t.true(codes.every((code) => ['claimed', 'ERR_RUN_EXISTS', 'ERR_RUN_LOCKED'].includes(code)))
  const named = await Promise.all(
    Array.from({ length: 4 }, () => RunFolder.claim(undefined, join(folder, 'a', 'b'), () => {})),
  )
  t.deepEqual(named.map((run) => run.path.slice(folder.length)).sort(), [
    '/a/b',
    '/a/b-2',
    '/a/b-3',
    '/a/b-4',
  ])
  for (const run of named) await run.abandon()
  t.deepEqual(readdirSync(join(folder, 'a')), [])
  await (await RunFolder.claim(join(folder, 'c', 'd'), '', () => {})).abandon()
  t.deepEqual(readdirSync(folder).sort(), ['a', 'run'])
})

test('a claim that a killed process left can be claimed again', async (t) => {
  const folder = temporaryFolder(t)
  const run = join(folder, 'run')
  mkdirSync(run)
  writeFileSync(join(run, 'thesis.txt'), 'precious')
  await rejectsWith(t, 'ERR_RUN_EXISTS', () => RunFolder.claim(run, '', () => {}))
  rmSync(join(run, 'thesis.txt'))
  // Killed before its lock was in place, and after.
  writeFileSync(join(run, `lock.${deadPid()}-1-1`), '')
  ;(await RunFolder.claim(run, '', () => {})).release()
  t.deepEqual(readdirSync(run), [])
  writeLock(run, { pid: deadPid() })
  const claimed = await RunFolder.claim(run, '', () => {})
  await rejectsWith(t, 'ERR_RUN_EXISTS', () => RunFolder.claim(run, '', () => {}))
  claimed.release()
  // Killed while it wrote the files of the run, and claimed by a process that was interrupted.
  writeLock(run, { pid: deadPid() })
  writeFileSync(join(run, 'metrics.jsonl'), '')
  mkdirSync(join(run, 'tokenizer'))
  await (await RunFolder.claim(run, '', () => {})).abandon()
  t.deepEqual(readdirSync(run), [])
})

test('a run that is too large for its first step leaves no folder, a resumed one stays', async (t) => {
  const folder = temporaryFolder(t)
  const run = join(folder, 'run')
  const options = { ...SMALL, corpus: writeCorpus(folder), dataDir: folder, run }
  const huge = { ...options, batchSize: 2 ** 17, numLayers: 512, dFf: 128 }
  await rejectsWith(t, 'ERR_OUT_OF_MEMORY', () => new Trainer(huge).run())
  t.false(existsSync(run))
  await new Trainer({ ...options, maxSteps: 1 }).run()
  await new RunFolder(run).abandon()
  t.true(existsSync(join(run, 'config.json')))
})

test('a killed run that lost its config.json is not treated as an abandoned claim', async (t) => {
  const run = await smallRun(t, { stopAtStep: 1 })
  rmSync(join(run, 'config.json'))
  writeLock(run, { pid: deadPid() })
  const kept = checkpointsOf(run)
  await rejectsWith(t, 'ERR_RUN_EXISTS', () => RunFolder.claim(run, '', () => {}))
  t.deepEqual(checkpointsOf(run), kept)
})

test('of two processes that resume a run at the same time, one trains and one is refused', async (t) => {
  const { folder, flags } = await encodeCorpus(t)
  const run = join(folder, 'run')
  const more = words('--max-steps 400 --stop-at-step 2 --sample-interval 0 --eval-interval 0')
  await succeed(t, ['train', ...flags, ...more, '--run', run])
  const both = await Promise.all(
    [1, 2].map(async () => kindling(['train', '--run', run, '--resume', '--stop-at-step', '400'])),
  )
  both.sort((a, b) => a.code! - b.code!)
  t.deepEqual(
    both.map(({ code }) => code),
    [0, 1],
    both.map(({ stderr }) => stderr).join('\n'),
  )
  t.regex(both[1]!.stderr, /^ERR_RUN_LOCKED: process \d+ on .* since/m)
})

test('checkpoints are ordered by their numbers, not by their names', async (t) => {
  const run = temporaryFolder(t)
  const checkpoints = new RunCheckpoints(run)
  const steps = [99_999_999, 100_000_000, 100_000_001]
  for (const step of steps) mkdirSync(checkpoints.path(step), { recursive: true })
  mkdirSync(join(run, 'checkpoints', 'step-0000000001'))
  mkdirSync(join(run, 'checkpoints', 'aside-2026'))
  t.deepEqual(await checkpoints.steps(), steps)
  await checkpoints.setLatest(100_000_001, { keep: 2, keepEvery: 0 })
  t.deepEqual(await checkpoints.steps(), steps.slice(1))
})

test('keep and keepEvery never remove what latest names, nor a later one', async (t) => {
  const run = temporaryFolder(t)
  const checkpoints = new RunCheckpoints(run)
  for (const step of [1, 2, 3, 4, 5, 6, 9]) mkdirSync(checkpoints.path(step), { recursive: true })
  await checkpoints.setLatest(5, { keep: 1, keepEvery: 3 })
  t.deepEqual(await checkpoints.steps(), [3, 5, 6, 9])
  t.is(checkpoints.latestStep(), 5)
})

test('--keep-every keeps checkpoints besides the newest ones', async (t) => {
  const run = await smallRun(t, { keep: 2, keepEvery: 5 })
  t.deepEqual(checkpointsOf(run), stepNames(5, 10, 11, 12))
})

test('without latest, or if it names nothing, the newest checkpoint is resumed', async (t) => {
  const run = await smallRun(t, { keep: 3, stopAtStep: 6 })
  const kept = checkpointsOf(run)
  for (const text of [null, 'step-00000099\n', 'nonsense']) {
    if (text === null) rmSync(join(run, 'latest'))
    else writeFileSync(join(run, 'latest'), text)
    const { step } = await loadRun({ run })
    t.is(step, 6)
    const messages = await resume(run, { stopAtStep: 6 })
    t.true(
      messages.some((message) => /latest names .*of step 6/.test(message)),
      messages.join(),
    )
    t.deepEqual(checkpointsOf(run), kept)
    t.deepEqual(metricsSteps(run), [1, 2, 3, 4, 5, 6])
  }
  await resume(run)
  t.is(readFileSync(join(run, 'latest'), 'utf8'), 'step-00000012\n')
})

test("links, pipes and devices in the place of a run's files neither block a resume nor crash it", async (t) => {
  const run = await smallRun(t, { keep: 3, stopAtStep: 3 })
  const [latest, best] = [join(run, 'latest'), join(run, 'best')]
  const newest = join(run, 'checkpoints', 'step-00000003')
  const link = (to: string, from: string): void => {
    rmSync(from, { force: true, recursive: true })
    symlinkSync(to, from)
  }
  // People link to checkpoints by these names.
  link('checkpoints/step-00000002', latest)
  link('checkpoints/step-00000002', best)
  t.is((await loadRun({ run })).step, 3)
  t.regex((await resume(run, { stopAtStep: 3 })).join(), /latest names no checkpoint.*of step 3/)
  t.is(readFileSync(latest, 'utf8'), 'step-00000003\n')
  t.false(existsSync(best))
  link('/dev/zero', latest)
  t.is((await loadRun({ run })).step, 3)
  rmSync(latest)
  execFileSync('mkfifo', [latest, join(run, 'pipe')])
  t.is((await loadRun({ run })).step, 3)
  const damages = [
    () => link('../../pipe', join(newest, 'state.json')),
    () => link('/dev/zero', join(newest, 'model.safetensors')),
    () => {
      rmSync(newest, { recursive: true })
      writeFileSync(newest, 'a file')
    },
  ]
  for (const damage of damages) {
    await resume(run, { stopAtStep: 3 })
    damage()
    t.is((await loadRun({ run })).step, 2)
  }
  t.regex((await resume(run, { stopAtStep: 3 })).join(), /step-00000003.*trying an earlier/)
  t.is((await loadRun({ run })).step, 3)
  for (const name of ['metrics.jsonl', 'config.json']) {
    for (const unread of ['/dev/zero', 'pipe']) {
      link(unread, join(run, name))
      await rejectsWith(t, 'ERR_INVALID_CHECKPOINT', () => resume(run))
      t.is((await inspectRun(run)).info.state, name === 'config.json' ? 'broken' : 'interrupted')
      t.false(await new MetricsReader(join(run, 'metrics.jsonl')).poll())
    }
  }
})

test('a resume finishes what a process that was killed after its save left undone', async (t) => {
  const run = await smallRun(t, { keep: 2 })
  const kept = checkpointsOf(run)
  const names = stepNames(3, 8).map((name) => join(run, 'checkpoints', name))
  for (const name of names) cpSync(join(run, 'checkpoints', kept[0]!), name, { recursive: true })
  // The second was left by a process whose pid, 1, belongs to another one now.
  for (const name of ['.step-00000009.removed', '.step-00000006.1-0.partial'])
    mkdirSync(join(run, 'checkpoints', name))
  rmSync(join(run, 'latest'))
  await resume(run)
  t.deepEqual(checkpointsOf(run), kept)
  t.is(readFileSync(join(run, 'latest'), 'utf8'), 'step-00000012\n')
})

test('a damaged checkpoint is skipped, and if all are damaged, the run does not start over', async (t) => {
  const run = await smallRun(t, { stopAtStep: 6 })
  truncateSync(join(run, 'checkpoints', 'step-00000006', 'model.safetensors'), 100)
  rmSync(join(run, 'checkpoints', 'step-00000005', 'optimizer.safetensors'))
  const said: string[] = []
  t.is((await loadRun({ run, onMessage: (text) => said.push(text) })).step, 5)
  t.regex(said.join('\n'), /step-00000006.*trying an earlier checkpoint/)
  const messages = await resume(run, { stopAtStep: 5 })
  t.is(messages.filter((message) => message.includes('trying an earlier')).length, 2)
  t.true(messages.some((message) => message.includes('at step 4 of 12')))
  t.deepEqual(metricsSteps(run), [1, 2, 3, 4, 5])
  for (const name of checkpointsOf(run))
    writeFileSync(join(run, 'checkpoints', name, 'state.json'), '{')
  await rejectsWith(t, 'ERR_INVALID_CHECKPOINT', () => resume(run))
  t.deepEqual(metricsSteps(run), [1, 2, 3, 4, 5])
})

test('a checkpoint in the folder of another step is not loaded', async (t) => {
  const run = await smallRun(t, { stopAtStep: 2 })
  const [first, second] = stepNames(1, 2).map((name) =>
    join(run, 'checkpoints', name, 'state.json'),
  )
  writeFileSync(second!, readFileSync(first!))
  const messages = await resume(run)
  t.regex(messages[0]!, /state.json is damaged: it is of step 1; trying an earlier/)
})

test('--checkpoint starts a branch and keeps the later steps aside', async (t) => {
  const run = await smallRun(t, { keep: 9 })
  const whole = readFileSync(join(run, 'checkpoints', 'step-00000012', 'model.safetensors'))
  const checkpoint = join(run, 'checkpoints', 'step-00000005')
  await rejectsWith(t, 'ERR_USAGE', () => new Trainer({ checkpoint: run }).run())
  await rejectsWith(t, 'ERR_USAGE', () => new Trainer({ checkpoint, run: `${run}2` }).run())
  const branch = new Trainer({ checkpoint, stopAtStep: 7 })
  t.is((await branch.run()).steps, 7)
  const [aside, ...kept] = checkpointsOf(run)
  t.deepEqual(kept, stepNames(4, 5, 6, 7))
  const moved = readdirSync(join(run, 'checkpoints', aside!)).sort()
  t.deepEqual(moved, ['metrics.jsonl', ...stepNames(6, 7, 8, 9, 10, 11, 12)])
  t.deepEqual(metricsSteps(run), [1, 2, 3, 4, 5, 6, 7])
  await resume(run)
  const again = readFileSync(join(run, 'checkpoints', 'step-00000012', 'model.safetensors'))
  t.true(again.equals(whole))
})

/**
 * Makes a file-system operation fail for the paths that `matches` accepts. Returns a function that
 * undoes this.
 */
function failing(name: 'rm' | 'rename', matches: (...paths: string[]) => boolean): () => void {
  const original = fsPromises[name] as (...args: unknown[]) => Promise<void>
  const replace = (by: typeof original): void => void Object.assign(fsPromises, { [name]: by })
  replace(async (...args) => {
    if (!matches(...args.map(String))) return original(...args)
    throw Object.assign(new Error('EACCES: permission denied'), { code: 'EACCES' })
  })
  return () => replace(original)
}

test.serial('a checkpoint that cannot be removed is reported, and the run continues', async (t) => {
  const run = await smallRun(t, { keep: 1, stopAtStep: 3 })
  const trash = join(run, 'checkpoints', '.step-00000003.removed')
  const restore = failing('rm', (path) => path === trash && existsSync(path))
  t.teardown(restore)
  const messages = await resume(run, { stopAtStep: 6 })
  const named = messages.filter((text) => /cannot remove \S*step-00000003: EACCES/.test(text))
  t.is(named.length, 1, messages.join('\n'))
  t.deepEqual(checkpointsOf(run), ['.step-00000003.removed', ...stepNames(6)])
  t.regex(
    (await resume(run, { stopAtStep: 6 })).join('\n'),
    /cannot remove \S*step-00000003\.removed/,
  )
  restore()
  await resume(run, { stopAtStep: 6 })
  t.deepEqual(checkpointsOf(run), stepNames(6))
})

test.serial(
  'a branch that cannot move the later checkpoints aside leaves latest as it was',
  async (t) => {
    const run = await smallRun(t, { keep: 3, stopAtStep: 3 })
    const restore = failing('rename', (from, to) => from.startsWith(run) && /aside-/.test(to))
    t.teardown(restore)
    const checkpoint = join(run, 'checkpoints', 'step-00000001')
    await rejectsWith(t, 'ERR_NOT_WRITABLE', () => new Trainer({ checkpoint }).run())
    t.is(readFileSync(join(run, 'latest'), 'utf8'), 'step-00000003\n')
    restore()
    t.true((await resume(run, { stopAtStep: 4 })).some((text) => text.includes('at step 3 of 12')))
  },
)

test('a resume on other data is refused with what differs', async (t) => {
  const run = await smallRun(t, { stopAtStep: 1 })
  const folder = join(run, '..')
  const store = join(folder, 'corpus', 'train_chunks')
  const chunk = join(
    store,
    readdirSync(store).find((name) => name.endsWith('_0.dat'))!,
  )
  const bytes = readFileSync(chunk)
  const other = Buffer.from(bytes)
  other.writeInt32LE((other.readInt32LE(0) + 1) % 280, 0)
  writeFileSync(chunk, other)
  t.regex(
    await rejectsWith(t, 'ERR_RESUME_MISMATCH', () => resume(run)),
    /train_chunks: other tokens/,
  )
  writeFileSync(chunk, bytes)
  await resume(run, { stopAtStep: 2 })
  const corpus = join(folder, 'corpus.txt')
  writeFileSync(corpus, readFileSync(corpus).subarray(0, 15_000))
  await new Trainer({ ...SMALL, corpus, dataDir: folder, run: `${run}2`, maxSteps: 1 }).run()
  const message = await rejectsWith(t, 'ERR_RESUME_MISMATCH', () => resume(run))
  t.regex(message, /train_chunks: length \d+ is now \d+.*valid_chunks: length/)
})

test('corpora of the same name in two folders get a store each', async (t) => {
  const folder = temporaryFolder(t)
  const corpora = ['a', 'b'].map((name) => {
    mkdirSync(join(folder, name))
    return writeCorpus(join(folder, name))
  })
  writeFileSync(corpora[1]!, `${readFileSync(corpora[1]!, 'utf8')} and more`)
  const dataDir = join(folder, 'data')
  const runs = ['first', 'second'].map((name) => join(folder, name))
  for (const [i, run] of runs.entries()) {
    await new Trainer({ ...SMALL, corpus: corpora[i]!, dataDir, run, stopAtStep: 1 }).run()
  }
  const folders = readdirSync(dataDir).sort()
  t.is(folders.length, 2)
  t.is(folders[0], 'corpus')
  t.regex(folders[1]!, /^corpus-[0-9a-f]{8}$/)
  await resume(runs[0]!, { stopAtStep: 2 })
})

test('the tokenizer of a run must be the one it started with', async (t) => {
  const run = await smallRun(t, { maxSteps: 1 })
  rmSync(join(run, 'tokenizer'), { recursive: true })
  await rejectsWith(t, 'ERR_INVALID_TOKENIZER', () => loadRun({ run }))
  await rejectsWith(t, 'ERR_INVALID_TOKENIZER', () => resume(run))
})

test('a tokenizer that a store names may not be a link to another place', async (t) => {
  const { folder, data } = await encodeCorpus(t)
  const store = join(data, 'train_chunks')
  const options = { ...SMALL, data: store, maxSteps: 1 }
  symlinkSync(data, join(folder, 'linked'))
  const linked = join(folder, 'linked', 'train_chunks')
  await new Trainer({ ...options, data: linked, run: join(folder, 'first') }).run()
  t.true(existsSync(join(folder, 'first', 'tokenizer')))
  renameSync(join(data, 'tokenizer'), join(folder, 'elsewhere'))
  symlinkSync(join(folder, 'elsewhere'), join(data, 'tokenizer'))
  const trainer = new Trainer({ ...options, run: join(folder, 'second') })
  const message = await rejectsWith(t, 'ERR_INVALID_TOKENIZER', () => trainer.run())
  t.regex(message, /links to .*elsewhere/)
})
