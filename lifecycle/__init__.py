"""The phases of a Cloud Native Buildpacks build.

A phase is a module with one function that takes `Inputs`: `analyze`, `detect`, `restore`, `build`,
`export`, `rebase`, `publish`, and `create`, which runs the first five. `program` leads from a
command line to one of them: `invocation` makes the inputs, `opening` opens what needs root.

Below the phases are their parts, none of which knows a phase:

* `buildpacks`: which are tried, how they are run, what they leave;
* `caches` and `targets`: where layers and images are kept between builds;
* `images`, `layers` and `files`: what the phases read and write;
* `golang`: the bytes and words of Go's standard library.

`lint-imports` checks that nothing imports what is above it.
"""
