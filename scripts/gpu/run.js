/**
 * `scripts/gpu-check run` from a pack: runs the named stages, or all, each within its limit, and
 * continues after a failure. Rewrites the report after each stage. scripts/gpu-check unpacks into
 * GPU_CHECK_WORK and starts it.
 */
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { write } = require('./report')
const { EMULATED } = require('./shell')
const { STAGES } = require('./stages')

/** A call of ten minutes, less what starting and copying take. */
const CALL_SECONDS = 585
const LIBRARIES = ['libcuda.so.1', 'libcublasLt.so.13']

function parse(args) {
  const options = {
    stages: [],
    out: process.env.OUT || 'gpu-report',
    tiny: false,
    device: 'cuda',
    seconds: CALL_SECONDS,
  }
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]
    if (arg === '--tiny') options.tiny = true
    else if (arg === '--out') options.out = args[++i]
    else if (arg === '--device') options.device = args[++i]
    else if (arg === '--seconds') options.seconds = Number(args[++i])
    else if (STAGES.some(({ name }) => name === arg)) options.stages.push(arg)
    else throw new Error(`unknown "${arg}"; stages: ${STAGES.map(({ name }) => name).join(', ')}`)
  }
  if (!['cuda', 'cpu'].includes(options.device) || !(options.seconds > 0))
    throw new Error('see gpu-check')
  return options
}

/** Folders of Python's packages that hold cuBLASLt; PyTorch's wheels depend on them. */
function librariesOfPython(python) {
  const program = [
    'import glob, site, sys',
    'roots = {*site.getsitepackages(), site.getusersitepackages(), *sys.path}',
    'print(":".join(sorted({f for r in roots if r for f in glob.glob(r + "/nvidia/*/lib")})))',
  ].join('\n')
  return spawnSync(python, ['-c', program], { encoding: 'utf8' }).stdout?.trim() ?? ''
}

/** Sets up the emulated GPU if the pack has one and --tiny asks for it. */
function emulatedLibraries(work, tiny) {
  const built = path.join(work, EMULATED)
  if (!tiny || !fs.existsSync(built)) return undefined
  const folder = path.join(work, 'emulated')
  fs.mkdirSync(folder)
  for (const name of LIBRARIES) fs.symlinkSync(built, path.join(folder, name))
  return folder
}

function contextOf(options) {
  const work = process.env.GPU_CHECK_WORK
  if (!work) throw new Error('start it by scripts/gpu-check run')
  const python = process.env.GPU_CHECK_PYTHON ?? 'python3'
  const emulated = emulatedLibraries(work, options.tiny)
  const environment = { NAPI_RS_NATIVE_LIBRARY_PATH: path.join(work, 'addon.node') }
  if (emulated) environment.LD_LIBRARY_PATH = emulated
  else
    environment.KINDLING_CUDA_LIBRARIES =
      process.env.KINDLING_CUDA_LIBRARIES ?? librariesOfPython(python)
  return {
    ...options,
    work,
    python,
    environment,
    emulated: emulated !== undefined,
    root: path.join(__dirname, '..', '..'),
  }
}

function main() {
  const options = parse(process.argv.slice(2))
  const context = contextOf(options)
  const chosen = STAGES.filter(
    ({ name }) => options.stages.length === 0 || options.stages.includes(name),
  )
  const end = Date.now() + 1000 * options.seconds
  const results = []
  for (const { name, title, seconds, run } of chosen) {
    const started = Date.now()
    const stageEnd = Math.min(end, started + 1000 * seconds)
    context.secondsLeft = () => (stageEnd - Date.now()) / 1000
    const checks = []
    const check = (claim, state, detail = '', figures) => {
      const word = state === true ? 'passed' : state === false ? 'FAILED' : state
      checks.push({ claim, state: word, detail, figures })
      console.log(`${word} ${claim}${detail ? ` (${detail.split('\n')[0]})` : ''}`)
    }
    console.log(`== ${title}`)
    if (stageEnd - started < 5000)
      check('time is left for it', 'skipped', 'name it alone: gpu-check run ' + name)
    else {
      try {
        run(context, check)
      } catch (error) {
        check('the stage ends', false, error.stack)
      }
    }
    results.push({ name, title, seconds: (Date.now() - started) / 1000, checks })
    write(options.out, { host: os.type(), options, emulated: context.emulated, stages: results })
  }
  const count = (state) =>
    results.flatMap(({ checks }) => checks).filter((c) => c.state === state).length
  console.log(`report: ${path.resolve(options.out, 'report.md')}`)
  console.log(`${count('passed')} passed, ${count('FAILED')} failed, ${count('skipped')} skipped`)
  process.exitCode = count('FAILED') > 0 ? 1 : 0
}

main()
