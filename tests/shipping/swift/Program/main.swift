// Runs the kit's code for its tests.
//     Program cases LINES OUT     fits noise: a line a case; writes all squares, one after the other
//     Program golden KIT MUTANT…  prints the golden set's results of each mutant as JSON, of a kit's folder
//     Program classify KIT FILE   prints the labels, the most probable first
//     Program time                prints milliseconds of fitting three sizes to 224 pixels
import Foundation

let arguments = CommandLine.arguments

/// The classifier of a kit on LiteRT. The mutant "model" gives its scores in reverse.
struct Reversed: Runtime {
    let runtime: Runtime
    func scores(of input: [UInt8]) throws -> [Float] {
        let scores = try runtime.scores(of: input)
        return mutant == "model" ? scores.reversed() : scores
    }
}

func opened(_ folder: URL) throws -> Classifier {
    let file = try FileManager.default.contentsOfDirectory(atPath: folder.path).first { $0.hasSuffix(".tflite") }
    let model = folder.appendingPathComponent(file!)
    return try Classifier(runtime: Reversed(runtime: TensorFlowLiteRuntime(model: model, on: .cpu, threads: 1)), folder: folder)
}

let formats: [String: Format] = ["rgb": .rgb, "rgbx": .rgbx, "bgrx": .bgrx, "rgba": .rgba, "grey": .grey]

/// "width height seed format padding orientation size resize kernel geometry background"
func square(_ line: Substring) throws -> [UInt8] {
    let words = line.split(separator: " ").map(String.init)
    let numbers = words.map { Int($0) ?? 0 }
    let format = formats[words[3]]!, stride = numbers[0] * format.step + numbers[4]
    let bytes = noise(stride * numbers[1], 1, seed: numbers[2]).prefix(stride * numbers[1])
    let colour = UInt32(words[10].dropFirst(), radix: 16)!
    let fit = try Fit(
        size: numbers[6], resizeSize: numbers[7], kernel: Kernel(rawValue: words[8])!,
        geometry: Geometry(rawValue: words[9])!, background: [colour >> 16, colour >> 8, colour].map { UInt8($0 & 255) })
    return try bytes.withUnsafeBytes {
        fit.square(
            of: try Pixels($0, width: numbers[0], height: numbers[1], stride: stride, format: format).turned(numbers[5]))
    }
}

func milliseconds(_ width: Int, _ height: Int) throws -> Double {
    let bytes = noise(width, height, seed: 1).chunked()
    let fit = try Fit(size: 224, resizeSize: 256, kernel: .bilinear, geometry: .centreBox, background: [255, 255, 255])
    return try bytes.withUnsafeBytes { memory in
        let pixels = try Pixels(memory, width: width, height: height, stride: width * 4, format: .rgbx)
        let times = (0..<7).map { _ -> Double in
            let start = DispatchTime.now().uptimeNanoseconds
            precondition(fit.square(of: pixels).count == 224 * 224 * 3)
            return Double(DispatchTime.now().uptimeNanoseconds - start) / 1e6
        }
        return times.min()!
    }
}

extension [UInt8] {
    /// RGBX of RGB.
    func chunked() -> [UInt8] {
        var made = [UInt8](repeating: 255, count: count / 3 * 4)
        for pixel in 0..<count / 3 { for channel in 0..<3 { made[pixel * 4 + channel] = self[pixel * 3 + channel] } }
        return made
    }
}

switch arguments[1] {
case "cases":
    let lines = try String(contentsOfFile: arguments[2], encoding: .utf8).split(separator: "\n")
    try Data(lines.flatMap(square)).write(to: URL(fileURLWithPath: arguments[3]))
case "golden":
    let package = URL(fileURLWithPath: arguments[2]), name = arguments[3]
    let model = try opened(package.appendingPathComponent("Sources/\(name)/Model"))
    var found: [String: [Result]] = [:]
    for name in arguments[4...] {
        mutant = name
        let golden = try Golden(package.appendingPathComponent("Tests/\(arguments[3])Tests/golden"), classes: model.labels.count)
        found[name] = try golden.check(model, read: model.square(contentsOf:), runs: "")
    }
    print(String(decoding: try JSONEncoder().encode(found), as: UTF8.self))
case "classify":
    let answers = try Classifier().classify(contentsOf: URL(fileURLWithPath: arguments[2]))
    for answer in answers { print(answer.label, answer.number, answer.probability, answer.score, separator: "\t") }
case "refused":
    func say(_ name: String, _ action: () throws -> Void) {
        do { try action(); print(name, "taken", separator: "\t") } catch { print(name, error, separator: "\t") }
    }
    let bytes = [UInt8](repeating: 0, count: 100)
    bytes.withUnsafeBytes { memory in
        say("no pixels") { _ = try Pixels(memory, width: 0, height: 4, stride: 0, format: .rgb) }
        say("negative") { _ = try Pixels(memory, width: 4, height: -4, stride: 12, format: .rgb) }
        say("narrow stride") { _ = try Pixels(memory, width: 4, height: 4, stride: 11, format: .rgb) }
        say("too few") { _ = try Pixels(memory, width: 5, height: 5, stride: 25, format: .rgbx) }
        say("overflow") { _ = try Pixels(memory, width: 4, height: Int.max, stride: 12, format: .rgb) }
        say("wide overflow") { _ = try Pixels(memory, width: Int.max, height: 1, stride: Int.max, format: .rgb) }
        say("channel") { _ = try Pixels(memory, width: 4, height: 4, stride: 12, format: Format(step: 3, red: 3, green: 1, blue: 2)) }
        say("last row") { _ = try Pixels(memory, width: 5, height: 4, stride: 28, format: .rgb) }
        say("nothing") { _ = try Pixels(UnsafeRawBufferPointer(start: nil, count: 0), width: 1, height: 1, stride: 4, format: .rgbx) }
    }
    say("no file") { _ = try Classifier().classify(contentsOf: URL(fileURLWithPath: "/nowhere.png")) }
    say("square") { _ = try Classifier().scores(of: bytes) }
    say("metal") { _ = try Classifier(on: .metal) }
    say("core ml") { _ = try Classifier(on: .coreML) }
    say("folder") { _ = try Classifier(runtime: Reversed(runtime: TensorFlowLiteRuntime(model: Classifier.url(Model.file), on: .cpu, threads: 1)), folder: URL(fileURLWithPath: "/nowhere")) }
case "composed":
    var found: [UInt8] = []
    for alpha in 0...255 { for level in 0...255 { found += [0, 10, 128, 255].map { composed(UInt8(level), UInt8(alpha), $0) } } }
    try Data(found).write(to: URL(fileURLWithPath: arguments[2]))
default:
    for (width, height) in [(640, 480), (1920, 1080), (4000, 3000)] { print(try milliseconds(width, height)) }
}
