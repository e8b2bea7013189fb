#!/bin/sh
# Fetches uPlot from npm, checks that it is the package that was reviewed, and puts its files here.
set -eu
version=1.6.32
sha256=4b8a8191e425658e3ea8c8c1314b0fc679c861ee3a1af2b20c7b16ba50b5133d
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm pack --silent "uplot@$version"
echo "$sha256  uplot-$version.tgz" | sha256sum --check --quiet
tar -xzf "uplot-$version.tgz"
mkdir -p "$here/uplot-$version"
cp package/LICENSE package/dist/uPlot.iife.min.js package/dist/uPlot.min.css "$here/uplot-$version/"
echo "uPlot $version is in $here/uplot-$version"
