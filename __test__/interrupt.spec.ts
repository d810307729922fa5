/** Signals, closed pipes and full disks: what a command saves, prints and exits with. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { closeSync, constants, existsSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import { Trainer, Transformer, type Batch } from '../src'
import { CLI, kindling, words } from './command-line'
import { rejectsWith, temporaryFolder, writeCorpus } from './helpers'
import { encodeCorpus } from './small-runs'

const ENDLESS = words('--max-steps 1000000 --log-interval 5 --sample-interval 0 --eval-interval 0')

/** The step of the newest checkpoint. */
function latestOf(run: string): number {
  return Number(readFileSync(join(run, 'latest'), 'utf8').trim().slice('step-'.length))
}

/** Sends a signal to a process once its output matches. */
function onceItSays(child: ChildProcess, text: RegExp, signal: NodeJS.Signals): void {
  let said = ''
  const listen = (chunk: string): void => {
    said += chunk
    if (!text.test(said)) return
    child.stderr!.off('data', listen)
    child.stdout!.off('data', listen)
    child.kill(signal)
  }
  child.stdout!.on('data', listen)
  child.stderr!.on('data', listen)
}

/**
 * Sends a signal to a process once one of its threads reads a FIFO, to which nothing is written.
 */
function onceItReads(child: ChildProcess, fifo: string, signal: NodeJS.Signals): void {
  let writer: number | undefined
  const timer = setInterval(() => {
    try {
      // Fails until there is a reader.
      writer = openSync(fifo, constants.O_WRONLY | constants.O_NONBLOCK)
    } catch {
      return
    }
    clearInterval(timer)
    child.kill(signal)
  }, 20)
  child.on('exit', () => {
    clearInterval(timer)
    if (writer !== undefined) closeSync(writer)
  })
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  test(`${signal} says that it saves, saves, and exits with 130`, async (t) => {
    const { folder, flags } = await encodeCorpus(t)
    const run = join(folder, 'run')
    const stopped = await kindling(['train', ...flags, ...ENDLESS, '--run', run], (child) =>
      onceItSays(child, /step 5/, signal),
    )
    t.is(stopped.code, 130, stopped.stderr)
    t.regex(stopped.stderr, new RegExp(`^${signal}: saving a checkpoint after this step`, 'm'))
    t.true(latestOf(run) >= 5)
    t.false(existsSync(join(run, 'lock')))
  })
}

for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  test(`a second ${signal} ends at once, though a thread is busy`, async (t) => {
    const fifo = join(temporaryFolder(t), 'fifo')
    t.is(spawnSync('mkfifo', [fifo]).status, 0)
    const args = ['tokenizer', 'train', fifo, '--vocab-size', '300', '--out', `${fifo}.out`]
    const stopped = await kindling(args, (child) => {
      onceItReads(child, fifo, signal)
      onceItSays(child, /a second one stops at once/, signal)
    })
    t.is(stopped.code, code, stopped.stderr)
    t.false(existsSync(`${fifo}.out`))
  })
}

test('a run that is interrupted while its corpus is prepared leaves no folder', async (t) => {
  const folder = temporaryFolder(t)
  const corpus = join(folder, 'corpus.txt')
  writeFileSync(corpus, `${readFileSync(writeCorpus(folder), 'utf8')}\n`.repeat(400))
  const options = { corpus, dataDir: join(folder, 'data'), vocabSize: 280, device: 'cpu' }
  for (const phase of ['training the tokenizer', 'encoding the corpus']) {
    const controller = new AbortController()
    const trainer = new Trainer({ ...options, run: join(folder, 'runs', 'run'), threads: 1 })
    let seen = false
    trainer.on('progress', (what) => {
      if (what !== phase) return
      seen = true
      controller.abort()
    })
    await rejectsWith(t, 'ERR_CANCELLED', () => trainer.run({ signal: controller.signal }))
    t.true(seen, phase)
    t.false(existsSync(join(folder, 'runs')))
    t.false(existsSync(join(folder, 'data', 'corpus', 'corpus.json')))
  }
  const aborted = new Trainer({ ...options, run: join(folder, 'run') })
  await rejectsWith(t, 'ERR_CANCELLED', () => aborted.run({ signal: AbortSignal.abort() }))
  t.false(existsSync(join(folder, 'run')))
})

test('a run that is interrupted in an evaluation repeats it when it is resumed', async (t) => {
  const folder = temporaryFolder(t)
  const data = { corpus: writeCorpus(folder), dataDir: folder, vocabSize: 280 }
  const sizes = { dModel: 16, numHeads: 4, dFf: 24, numLayers: 1, seqLength: 8, batchSize: 2 }
  const schedule = { maxSteps: 6, logInterval: 2, evalInterval: 3, sampleInterval: 0 }
  const options = { ...data, ...sizes, ...schedule, device: 'cpu', threads: 1 }
  const whole = join(folder, 'whole')
  await new Trainer({ ...options, run: whole }).run()
  for (const at of [3, 6]) {
    const run = join(folder, `run-${at}`)
    const trainer = new Trainer({ ...options, run })
    const controller = new AbortController()
    trainer.on('step', ({ step }) => {
      // The evaluation of this step begins once all listeners have returned.
      if (step === at) controller.abort()
    })
    const summary = await trainer.run({ signal: controller.signal })
    t.true(summary.interrupted)
    t.is(latestOf(run), at)
    t.false(metrics(run).some((line) => line['step'] === at))
    for (let again = 0; again < 2; again++) {
      const resumed = await new Trainer({ run, resume: true, stopAtStep: at }).run()
      t.is(resumed.steps, at)
      t.false(resumed.interrupted)
    }
    await new Trainer({ run, resume: true }).run()
    t.deepEqual(metrics(run), metrics(whole))
  }
})

function metrics(run: string): Record<string, unknown>[] {
  const lines = readFileSync(join(run, 'metrics.jsonl'), 'utf8').trim().split('\n')
  return lines.map((line) => ({
    ...(JSON.parse(line) as object),
    tokens_per_second: 0,
    elapsed_s: 0,
    memory_mib: 0,
  }))
}

test.serial(
  'an interrupt between the batches of a step saves the state before it, and loses nothing',
  async (t) => {
    const folder = temporaryFolder(t)
    const options = {
      ...{
        corpus: writeCorpus(folder),
        dataDir: folder,
        vocabSize: 280,
        device: 'cpu',
        threads: 1,
      },
      ...{ dModel: 16, numHeads: 4, dFf: 24, numLayers: 1, seqLength: 8, batchSize: 2 },
      ...{ maxSteps: 3, logInterval: 1, evalInterval: 0, sampleInterval: 0, accumulate: 300 },
    }
    const [whole, run] = [join(folder, 'whole'), join(folder, 'run')]
    await new Trainer({ ...options, run: whole }).run()
    const trainer = new Trainer({ ...options, run })
    const controller = new AbortController()
    const said: string[] = []
    trainer.on('message', (text) => said.push(text))
    const { forwardBackward } = Transformer.prototype
    t.teardown(() => Object.assign(Transformer.prototype, { forwardBackward }))
    let batches = 0
    const counted = function (this: Transformer, batch: Batch): Promise<{ loss: number | null }> {
      if ((batches += 1) === options.accumulate + 7) controller.abort()
      return forwardBackward.call(this, batch, { scale: 1 / options.accumulate })
    }
    Object.assign(Transformer.prototype, { forwardBackward: counted })
    const { interrupted, steps } = await trainer.run({ signal: controller.signal })
    t.true(interrupted)
    t.is(steps, 1)
    t.regex(said.join('\n'), /leaving step 2 after 7 of its 300 batches; step 1 is saved/)
    t.is(latestOf(run), 1)
    await new Trainer({ run, resume: true }).run()
    const weights = ['model', 'optimizer'].map((name) =>
      join('checkpoints', 'step-00000003', `${name}.safetensors`),
    )
    for (const file of weights) {
      t.true(readFileSync(join(run, file)).equals(readFileSync(join(whole, file))), file)
    }
    t.deepEqual(metrics(run), metrics(whole))
  },
)

test('a run outlives the readers of its output and its errors', async (t) => {
  const { folder, flags } = await encodeCorpus(t)
  const run = join(folder, 'run')
  const args = ['train', ...flags, '--run', run, ...words('--max-steps 300 --log-interval 1')]
  const child = spawn(process.execPath, [CLI, ...args, '--sample-interval', '0'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  child.stdout.once('data', () => {
    child.stdout.destroy()
    child.stderr.destroy()
  })
  const code = await new Promise<number | null>((resolve) => child.on('exit', resolve))
  t.is(code, 0)
  t.is(latestOf(run), 300)
})

const hasTerminals = spawnSync('script', ['--version']).status === 0

for (const [what, steps, ending, code] of [
  // Like an interactive shell, the shell that the terminal controls passes SIGHUP on.
  ['saves and leaves when its terminal vanishes', 1_000_000, '& wait $!; wait $!', 130],
  ['outlives a terminal that does not control it', 300, '', 0],
] as const) {
  ;(hasTerminals ? test : test.skip)(`a run ${what}`, async (t) => {
    const { folder, flags } = await encodeCorpus(t)
    const [run, ended, shell] = ['run', 'ended', 'shell'].map((name) => join(folder, name))
    const schedule = words(`--max-steps ${steps} --log-interval 1 --sample-interval 0`)
    const train = [process.execPath, CLI, 'train', ...flags, ...schedule, '--run', run].join(' ')
    writeFileSync(shell!, `trap 'kill -HUP $!' HUP; ${train} ${ending}; echo $? > ${ended}\n`)
    const started = `${code === 0 ? 'setsid --wait' : 'exec'} sh ${shell}`
    const log = join(folder, 'log')
    const terminal = spawn('script', ['--quiet', '--flush', '--command', started, log])
    onceItSays(terminal, /loss/, 'SIGKILL')
    while (!existsSync(ended!) || readFileSync(ended!, 'utf8') === '') await sleep(20)
    t.is(readFileSync(ended!, 'utf8').trim(), `${code}`)
    t.true(latestOf(run!) >= 1)
    t.false(existsSync(join(run!, 'lock')))
  })
}

test('a full disk as standard output fails a command whose output is its product', async (t) => {
  const { folder, data, flags } = await encodeCorpus(t)
  const runTo = async (
    args: readonly string[],
  ): Promise<{ code: number | null; stderr: string }> => {
    const full = openSync('/dev/full', 'w')
    const child = spawn(process.execPath, [CLI, ...args], { stdio: ['ignore', full, 'pipe'] })
    let stderr = ''
    child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    const code = await new Promise<number | null>((resolve) => child.on('close', resolve))
    return { code, stderr }
  }
  for (const args of [words('account --preset char'), ['data', 'info', data], ['--help']]) {
    const { code, stderr } = await runTo(args)
    t.is(code, 1, args.join(' '))
    t.regex(stderr, /^ERR_DISK_FULL: cannot write standard output/m)
  }
  const run = join(folder, 'run')
  const train = ['train', ...flags, '--run', run, ...words('--max-steps 3 --log-interval 1')]
  const { code, stderr } = await runTo(train)
  t.is(code, 0, stderr)
  t.regex(stderr, /going on without it/)
  t.is(latestOf(run), 3)
})
