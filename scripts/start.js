/**
 * `npm start`: builds what is missing, then trains a small model on the embedded text, from raw text to a sample.
 * Arguments after `--` go to `kindling quickstart`.
 */
const { root, setup } = require('./setup')
const { spawn } = require('node:child_process')
const path = require('node:path')

setup()
const cli = path.join(root, 'dist', 'cli', 'index.js')
const child = spawn(process.execPath, [cli, 'quickstart', ...process.argv.slice(2)], {
  stdio: 'inherit',
})
// The terminal sends Ctrl-C to both; the run saves and says so, and its exit code is ours.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal))
child.on('exit', (code, signal) => {
  process.exitCode = code ?? (signal ? 1 : 0)
})
