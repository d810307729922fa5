/**
 * Compiles all CUDA kernels for sm_80 and sm_90a, and prints the registers, shared memory and
 * spilled bytes that ptxas reports. Fails if a file does not compile, a kernel spills more than a few
 * registers, or warpgroup products wait for each other (a warning of ptxas).
 *
 * Uses the nvcc of $CUDA_HOME, or the one that the CUDA build fetches.
 *
 * Usage: node scripts/checks/ptxas.js [FILE.cu...]
 */
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { cudaHome } = require('../cuda-toolkit')

const ops = path.join(__dirname, '..', '..', 'crates', 'kindling-core', 'src', 'ops')
const ARCHITECTURES = ['80', '90a']
/** Bytes that a thread may spill: eight registers, saved and restored outside the inner loop. */
const MAX_SPILLED = 32

const nvcc = path.join(cudaHome(), 'bin', 'nvcc')

function sources() {
  const named = process.argv.slice(2).filter((argument) => !argument.startsWith('--'))
  if (named.length > 0) return named
  return fs
    .readdirSync(ops, { recursive: true })
    .filter((name) => name.endsWith('.cu'))
    .sort()
    .map((name) => path.join(ops, name))
}

/** Parses the output of ptxas into { kernel, registers, shared, spilled } per kernel. */
function kernelsOf(output) {
  const kernels = []
  for (const line of output.split('\n')) {
    const entry = /Compiling entry function '(\w+)'/.exec(line)
    if (entry) kernels.push({ kernel: entry[1], registers: 0, shared: 0, spilled: 0 })
    const last = kernels.at(-1)
    const spills = /(\d+) bytes spill stores/.exec(line)
    if (spills && last) last.spilled = Number(spills[1])
    const used = /Used (\d+) registers/.exec(line)
    if (used && last) {
      last.registers = Number(used[1])
      last.shared = Number(/(\d+) bytes smem/.exec(line)?.[1] ?? 0)
    }
  }
  return kernels
}

/** Compiles one file for one architecture. Returns its kernels, or null if that fails. */
function compile(file, architecture, folder) {
  const cubin = path.join(folder, 'kernels.cubin')
  const options = [
    '-std=c++17',
    '-cubin',
    `-gencode=arch=compute_${architecture},code=sm_${architecture}`,
    '-Xptxas',
    '-v',
    '-I',
    ops,
    '-o',
    cubin,
    file,
  ]
  const { status, stdout, stderr, error } = spawnSync(nvcc, options, { encoding: 'utf8' })
  if (error) throw error
  const serialized = (stdout + stderr).includes('wgmma.mma_async instructions are serialized')
  if (status === 0 && !serialized) return kernelsOf(stdout + stderr)
  process.stderr.write(stdout + stderr)
  return null
}

function main() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'kindling-ptxas-'))
  let failed = 0
  let passed = 0
  for (const file of sources()) {
    for (const architecture of ARCHITECTURES) {
      const kernels = compile(file, architecture, folder)
      if (kernels === null) failed++
      for (const { kernel, registers, shared, spilled } of kernels ?? []) {
        const verdict = spilled > MAX_SPILLED ? 'SPILLS' : 'ok'
        if (spilled > MAX_SPILLED) failed++
        else passed++
        process.stdout.write(
          `sm_${architecture} ${kernel.padEnd(40)} ${registers} registers, ${shared} B shared, ${spilled} B spilled: ${verdict}\n`,
        )
      }
    }
  }
  fs.rmSync(folder, { recursive: true })
  process.stdout.write(`${passed} passed, ${failed} failed\n`)
  process.exitCode = failed > 0 ? 1 : 0
}

main()
