/**
 * The platforms that packages are built for: how npm selects each, and how cargo builds it. `glibc`
 * is the oldest version that an addon runs on; zig links to it.
 */
const path = require('node:path')

const root = path.join(__dirname, '..', '..')

const PLATFORMS = {
  'linux-x64-gnu': {
    npm: { os: ['linux'], cpu: ['x64'], libc: ['glibc'] },
    target: 'x86_64-unknown-linux-gnu',
    glibc: '2.28',
    features: ['cuda'],
  },
  'linux-x64-musl': {
    npm: { os: ['linux'], cpu: ['x64'], libc: ['musl'] },
    target: 'x86_64-unknown-linux-musl',
    // Node loads the addon as a shared library, so it shares Node's libc.
    rustflags: '-C target-feature=-crt-static',
  },
  'linux-arm64-gnu': {
    npm: { os: ['linux'], cpu: ['arm64'], libc: ['glibc'] },
    target: 'aarch64-unknown-linux-gnu',
    glibc: '2.28',
  },
  'darwin-x64': { npm: { os: ['darwin'], cpu: ['x64'] }, target: 'x86_64-apple-darwin' },
  'darwin-arm64': { npm: { os: ['darwin'], cpu: ['arm64'] }, target: 'aarch64-apple-darwin' },
  'win32-x64-msvc': { npm: { os: ['win32'], cpu: ['x64'] }, target: 'x86_64-pc-windows-msvc' },
}

/** Where built addons are collected, one file per platform. */
const ADDONS = path.join(root, 'target', 'addons')
const addonName = (platform) => `kindling.${platform}.node`
const addonPath = (platform) => path.join(ADDONS, addonName(platform))

module.exports = { ADDONS, addonName, addonPath, PLATFORMS, root }
