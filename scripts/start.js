/**
 * `npm start`: builds what is out of date, then runs `kindling quickstart`, which trains a small
 * model on the embedded text. Arguments after `--` go to `kindling quickstart`.
 */
const { root, setup } = require('./setup')
const { spawn } = require('node:child_process')
const path = require('node:path')

setup()
const cli = path.join(root, 'dist', 'cli', 'index.js')
const child = spawn(process.execPath, [cli, 'quickstart', ...process.argv.slice(2)], {
  stdio: 'inherit',
})
// Ctrl-C reaches both processes. The child saves its run and exits; its exit code becomes ours.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal))
child.on('exit', (code, signal) => {
  process.exitCode = code ?? (signal ? 1 : 0)
})
