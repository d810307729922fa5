/**
 * Lets the n-th file operation, or the n-th large allocation, fail in a tokenizer training, an
 * encode and a training of 4 steps with 2 checkpoints, for every n, as SQLite's tests do. Each
 * time, the command must end by itself, with an error code or with success, and leave intact what
 * was there before. The same command must then succeed with the result of an uninterrupted one, and
 * no temporary file may be left.
 *
 * Usage: node scripts/campaigns/fault-injection [--stride 1] [--only train] [--fail allocations]
 */
const { root, text, claim, skip, campaign, option } = require('../claims')
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')

const CLI = path.join(root, 'dist', 'cli', 'index.js')
/**
 * What can fail: the library that makes it fail, a model width that is affected, and the error
 * codes to expect.
 */
const FAULTS = {
  files: { source: 'faults.c', dModel: 16, codes: /ERR_(IO|DISK_FULL|NOT_WRITABLE)/ },
  // The weights of the model, its gradients and moments are each larger than LARGE.
  allocations: { source: 'allocations.c', dModel: 256, codes: /ERR_OUT_OF_MEMORY/ },
}
const { source: SOURCE, dModel, codes: CODES } = FAULTS[option('fail', 'files')]
/**
 * Smaller allocations never fail here: Rust's collections abort the process if one does, and so
 * does the crate gemm without its workspace of 1 MiB per thread.
 */
const LARGE = 2 ** 20 + 1
const TRAIN = [
  ...`--d-model ${dModel} --num-heads 2 --d-ff ${2 * dModel} --num-layers 1`.split(' '),
  ...'--max-seq-length 16 --seq-length 16 --batch-size 2'.split(' '),
  ...'--max-steps 4 --save-interval 2 --log-interval 1 --eval-interval 0'.split(' '),
  ...'--sample-interval 0 --threads 1 --device cpu'.split(' '),
]

/** Runs the command line. With `fault`, call number `fault.at` below `fault.folder` fails. */
function run(args, fault) {
  const env = { ...process.env }
  if (fault) {
    Object.assign(env, {
      LD_PRELOAD: fault.library,
      KINDLING_FAULT_ROOT: fault.folder,
      KINDLING_FAULT_AT: `${fault.at}`,
      KINDLING_FAULT_ERRNO: `${os.constants.errno[fault.at % 3 === 2 ? 'ENOSPC' : 'EIO']}`,
      KINDLING_FAULT_COUNT: fault.count,
      KINDLING_FAULT_BYTES: `${LARGE}`,
    })
  }
  const options = { encoding: 'utf8', env, timeout: 120_000 }
  return spawnSync(process.execPath, [CLI, ...args], options)
}

/**
 * Returns every file below `folder` with its content, except those whose path matches `ignored`.
 */
function contents(folder, ignored) {
  const names = fs.readdirSync(folder, { recursive: true, withFileTypes: true })
  const files = names.filter((entry) => entry.isFile())
  const found = files.map((entry) => path.join(entry.parentPath ?? entry.path, entry.name))
  return found
    .filter((file) => !ignored.test(path.relative(folder, file)))
    .sort()
    .map((file) => `${path.relative(folder, file)} ${fs.readFileSync(file, 'base64')}`)
    .join('\n')
}

/** Returns the names of temporary files below `folder`. */
function leftovers(folder) {
  const names = fs.readdirSync(folder, { recursive: true })
  return names.filter((name) => /\.(partial|new|tmp)(\/|$)/.test(name))
}

/**
 * The jobs. `before` are commands that run first, `args` is the command itself, `again` the one
 * that continues after a failure (default `args`), `check` verifies what was there before, and
 * `ignored` matches files that are not compared.
 */
function jobs(shared) {
  const tokenizer = path.join(shared, 'tokenizer')
  const data = path.join(shared, 'data')
  const train = (folder) => ['train', '--data', data, '--run', path.join(folder, 'run')]
  const started = (folder) => fs.existsSync(path.join(folder, 'run', 'config.json'))
  return {
    tokenizer: {
      before: () => [],
      args: (folder) => {
        const out = path.join(folder, 'tokenizer')
        return ['tokenizer', 'train', text, '--vocab-size', '270', '--out', out]
      },
      ignored: /^$/,
    },
    encode: {
      // An earlier store is replaced.
      before: (folder) => [
        [
          'encode',
          path.join(shared, 'small.txt'),
          '--tokenizer',
          tokenizer,
          '--out',
          `${folder}/data`,
        ],
      ],
      args: (folder) => [
        ...['encode', path.join(shared, 'text.txt'), '--tokenizer', tokenizer],
        ...['--out', path.join(folder, 'data'), '--valid-fraction', '0.1', '--chunk-size', '20000'],
      ],
      check: (folder) => [['data', 'verify', path.join(folder, 'data', 'train_chunks')]],
      ignored: /^$/,
    },
    train: {
      before: (folder) => [[...train(folder), ...TRAIN, '--stop-at-step', '2']],
      args: (folder) => [...train(folder), '--resume', '--stop-at-step', '4'],
      again: (folder) =>
        started(folder)
          ? [...train(folder), '--resume', '--stop-at-step', '4']
          : [...train(folder), ...TRAIN],
      ignored: /metrics|config|lock|state\.json|tokenizer/,
    },
    start: {
      before: () => [],
      args: (folder) => [...train(folder), ...TRAIN],
      again: (folder) =>
        started(folder)
          ? [...train(folder), '--resume', '--stop-at-step', '4']
          : [...train(folder), ...TRAIN],
      ignored: /metrics|config|lock|state\.json|tokenizer/,
    },
  }
}

function succeed(args) {
  const { status, stdout, stderr } = run(args)
  if (status !== 0) throw new Error(`kindling ${args.join(' ')}: ${status}\n${stdout}${stderr}`)
}

/** Lets every call of a job fail in turn; returns what went wrong. */
function inject(name, job, folder, library, stride) {
  const wrong = []
  const count = path.join(folder, 'count')
  const place = path.join(folder, 'place')
  const prepare = () => {
    fs.rmSync(place, { recursive: true, force: true })
    fs.mkdirSync(place)
    for (const args of job.before(place)) succeed(args)
  }
  prepare()
  succeed(job.args(place))
  const whole = contents(place, job.ignored)
  let [at, calls, failed] = [1, 0, 0]
  for (; ; at += stride) {
    prepare()
    fs.rmSync(count, { force: true })
    const fault = { library, folder: place, at, count }
    const broken = run(job.args(place), fault)
    calls = fs.existsSync(count) ? fs.statSync(count).size : 0
    const report = (what) => wrong.push(`${name}, call ${at}: ${what}`)
    if (broken.signal !== null || ![0, 1].includes(broken.status))
      report(`ended with ${broken.signal ?? broken.status}: ${broken.stderr.slice(-300)}`)
    else if (broken.status === 1) {
      failed += 1
      const last = broken.stderr.trimEnd().split('\n').at(-1)
      if (!CODES.test(last)) report(`no code: ${last}`)
    }
    for (const args of broken.status === 0 ? [] : (job.check?.(place) ?? [])) {
      const checked = run(args)
      if (checked.status !== 0) report(`what was there is damaged: ${checked.stderr.slice(-300)}`)
    }
    const again = run((job.again ?? job.args)(place))
    if (again.status !== 0) report(`does not go on: ${again.stderr.slice(-300)}`)
    else if (contents(place, job.ignored) !== whole) report('goes on to another result')
    const left = leftovers(place)
    if (left.length > 0) report(`leaves ${left.join(', ')}`)
    if (at > calls) break
  }
  return { wrong, calls, failed }
}

campaign(async (folder) => {
  const library = path.join(folder, 'faults.so')
  const source = path.join(__dirname, SOURCE)
  const built = spawnSync('cc', ['-O1', '-shared', '-fPIC', '-o', library, source, '-ldl'])
  if (process.platform !== 'linux' || process.arch !== 'x64' || built.status !== 0) {
    skip(`failing ${option('fail', 'files')}`, 'it takes Linux on x86-64 and a C compiler')
    return
  }
  const words = fs.readFileSync(text, 'utf8')
  fs.writeFileSync(path.join(folder, 'small.txt'), words.slice(0, 20_000))
  fs.writeFileSync(path.join(folder, 'text.txt'), words.slice(0, 200_000))
  const tokenizer = path.join(folder, 'tokenizer')
  succeed(['tokenizer', 'train', text, '--vocab-size', '270', '--out', tokenizer])
  const data = ['--tokenizer', tokenizer, '--out', path.join(folder, 'data')]
  succeed(['encode', path.join(folder, 'small.txt'), ...data])
  const stride = Number(option('stride', '1'))
  const what = option('fail') === 'allocations' ? 'large allocation' : 'call'
  for (const [name, job] of Object.entries(jobs(folder))) {
    if (![undefined, name].includes(option('only'))) continue
    const { wrong, calls, failed } = inject(name, job, folder, library, stride)
    for (const what of wrong) process.stdout.write(`${what}\n`)
    claim(
      `${name}: whatever ${what} fails, nothing is lost and the next run completes`,
      wrong.length === 0,
      `${calls} calls, ${failed} failures reported, ${wrong.length} wrong`,
    )
  }
})
