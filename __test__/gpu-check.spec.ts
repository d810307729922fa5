/**
 * Claims of `scripts/gpu-check run` that need no GPU, such as that its stages fit into their calls.
 */
import test from 'ava'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

interface Row {
  what: string
  tokens_per_second?: number
  mfu?: number
}

const root = join(__dirname, '..')
const load = (path: string): unknown => require(join(root, 'scripts', path)) as unknown
const { STAGES } = load('gpu/stages.js') as { STAGES: { name: string; seconds: number }[] }
const { MEASURED, MODES, longest } = load('gpu/presets.js') as {
  MEASURED: { name: string; limits: { ours: number; torch: number } }[]
  MODES: Record<'bench' | 'autotune', string[]>
  longest(measured: unknown, modes: string[]): number
}
const secondsOf = (name: string): number => STAGES.find((stage) => stage.name === name)!.seconds

/** Returns the calls in docs/gpu-check.md, each as the names of its stages. */
function documentedCalls(): string[][] {
  const page = readFileSync(join(root, 'docs', 'gpu-check.md'), 'utf8')
  return [...page.matchAll(/^scripts\/gpu-check run ([a-z0-9 -]+)$/gm)].map(([, names]) =>
    names!.split(' '),
  )
}

test('the stages of each documented call end within its ten minutes', (t) => {
  const calls = documentedCalls()
  t.true(calls.length > 1)
  for (const names of calls) {
    const total = names.reduce((sum, name) => sum + secondsOf(name), 0)
    t.true(total < 585, `${names.join(' ')}: ${total} s`)
  }
})

test('the documented calls run every stage but autotune once', (t) => {
  const wanted = STAGES.map(({ name }) => name).filter((name) => !name.startsWith('autotune-'))
  t.deepEqual(documentedCalls().flat().sort(), wanted.sort())
})

test('a comparison with PyTorch fits its stage even if every command takes its limit', (t) => {
  for (const measured of MEASURED) {
    const { ours, torch } = measured.limits
    t.true(secondsOf(`bench-${measured.name}`) >= 3 * ours + 2 * torch)
    t.is(longest(measured, MODES.autotune), secondsOf(`autotune-${measured.name}`))
    t.true(secondsOf(`autotune-${measured.name}`) < 585)
  }
})

test('the checks of any device are tests of the fake libcuda', (t) => {
  const { OF_ANY_DEVICE } = load('gpu/correctness.js') as { OF_ANY_DEVICE: string[] }
  const { TESTS } = load('checks/fake-libcuda.js') as { TESTS: object }
  t.deepEqual(
    OF_ANY_DEVICE.filter((name) => !(name in TESTS)),
    [],
  )
})

test('the launches of kernels.py have the arguments of the kernels in the sources', (t) => {
  const script = join(root, 'scripts', 'gpu', 'kernels.py')
  const args = [script, '--dry-run', '--nvcc', '']
  const { error, status, stdout, stderr } = spawnSync('python3', args, { encoding: 'utf8' })
  if (error) {
    t.log('skipped: python3 is missing')
    t.pass()
    return
  }
  t.is(status, 0, stdout + stderr)
})

test("PyTorch's MFU follows from ours by the speeds", (t) => {
  const { withMfu } = load('gpu/beside-pytorch.js') as { withMfu(rows: Row[]): Row[] }
  const ours = { what: 'kindling', tokens_per_second: 400, mfu: 0.4 }
  const rows = [ours, { what: 'PyTorch default', tokens_per_second: 500 }, { what: 'PyTorch x' }]
  t.deepEqual(
    withMfu(rows).map(({ mfu }) => mfu),
    [0.4, 0.5, undefined],
  )
  t.deepEqual(withMfu(rows.slice(1)), rows.slice(1))
})
