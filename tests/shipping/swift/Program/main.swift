// Runs the kit's code for its tests: commands with "--" between them, one process for all. Prints "--" after each.
//     Program cases LINES OUT     fits noise: a line a case; writes all squares, one after the other
//     Program golden KIT PACKAGE MUTANT…  prints the golden set's results of each mutant as JSON, of a kit's folder
//     Program classify FILE       prints the answers, the most probable first
//     Program frame FILE          whether a camera frame of a picture, lying on its side, has the same answers
//     Program labels FOLDER       prints the labels that a folder has
//     Program release FOLDER      prints whether a release's golden set is right, as the updates test it
//     Program tensor LAYOUT OUT   writes the float32 tensor of a square of noise of 8 pixels
//     Program composed OUT        writes levels of transparent pixels over four backgrounds
//     Program refused             prints what is said of bad input
//     Program time                prints milliseconds of fitting three sizes to 224 pixels
import CoreGraphics
import CoreVideo
import Foundation
import ImageIO

/// The classifier of a kit on LiteRT. The mutant "model" gives its scores in reverse.
struct Reversed: Runtime {
    let runtime: Runtime
    func scores(of input: [UInt8]) throws -> [Float] {
        let scores = try runtime.scores(of: input)
        return mutant == "model" ? scores.reversed() : scores
    }
}

/// Gives one score, whatever the number of classes.
struct Fixed: Runtime {
    func scores(of input: [UInt8]) throws -> [Float] { [0] }
}

func opened(_ folder: URL) throws -> Classifier {
    let file = try FileManager.default.contentsOfDirectory(atPath: folder.path).first { $0.hasSuffix(".tflite") }
    let runtime = try TensorFlowLiteRuntime(model: folder.appendingPathComponent(file!), on: .cpu, threads: 1)
    return try Classifier(runtime: Reversed(runtime: runtime), folder: folder)
}

let formats: [String: Format] = ["rgb": .rgb, "rgbx": .rgbx, "bgrx": .bgrx, "rgba": .rgba, "grey": .grey]

/// "width height seed format padding orientation size resize kernel geometry background"
func square(_ line: Substring) throws -> [UInt8] {
    let words = line.split(separator: " ").map(String.init)
    let numbers = words.map { Int($0) ?? 0 }
    let format = formats[words[3]]!, stride = numbers[0] * format.step + numbers[4]
    let bytes = noise(stride * numbers[1], 1, seed: numbers[2]).prefix(stride * numbers[1])
    let colour = UInt32(words[10].dropFirst(), radix: 16)!
    let levels = [colour >> 16, colour >> 8, colour].map { UInt8($0 & 255) }
    let fit = try Fit(
        size: numbers[6], resizeSize: numbers[7], kernel: Kernel(rawValue: words[8])!,
        geometry: Geometry(rawValue: words[9])!, background: levels)
    return try bytes.withUnsafeBytes {
        let pixels = try Pixels($0, width: numbers[0], height: numbers[1], stride: stride, format: format)
        return fit.square(of: pixels.turned(numbers[5]))
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

/// Runs a command, its name first.
func run(_ arguments: [String]) throws {
    switch arguments[0] {
    case "cases":
        let lines = try String(contentsOfFile: arguments[1], encoding: .utf8).split(separator: "\n")
        try Data(lines.flatMap(square)).write(to: URL(fileURLWithPath: arguments[2]))
    case "golden":
        let package = URL(fileURLWithPath: arguments[1]), name = arguments[2]
        let model = try opened(package.appendingPathComponent("Sources/\(name)/Model"))
        let folder = package.appendingPathComponent("Tests/\(name)Tests/golden")
        let golden = try Golden(folder, classes: model.labels.count)
        var found: [String: [Result]] = [:]
        for name in arguments[3...] {
            mutant = name
            found[name] = try golden.check(model, read: model.square(contentsOf:), runs: "")
        }
        print(String(decoding: try JSONEncoder().encode(found), as: UTF8.self))
    case "classify":
        let answers = try Classifier().classify(contentsOf: URL(fileURLWithPath: arguments[1]))
        for answer in answers { print(answer.label, answer.number, answer.probability, answer.score, separator: "\t") }
    case "frame":
        let url = URL(fileURLWithPath: arguments[1])
        let image = CGImageSourceCreateImageAtIndex(CGImageSourceCreateWithURL(url as CFURL, nil)!, 0, nil)!
        let (width, height) = (image.width, image.height), rgb = [UInt8](image.dataProvider!.data!)
        var bgra = [UInt8](repeating: 0, count: width * height * 4)
        for row in 0..<height {  // turned left: orientation 6 turns it back
            for column in 0..<width {
                let from = (row * width + column) * 3, to = ((width - 1 - column) * height + row) * 4
                for channel in 0..<3 { bgra[to + 2 - channel] = rgb[from + channel] }
            }
        }
        let model = try Classifier()
        let frame = try model.classify(CVPixelBuffer(height, width, bgra), orientation: 6)
        let file = try model.classify(contentsOf: url)
        print(frame.map(\.score) == file.map(\.score) ? "equal" : "other")
        do { _ = try model.classify(CVPixelBuffer(height, width, bgra, format: 1)) } catch { print(error) }
    case "labels":
        let model = try Classifier(runtime: Fixed(), folder: URL(fileURLWithPath: arguments[1]))
        print(String(decoding: try JSONEncoder().encode(model.labels), as: UTF8.self))
        let black = [UInt8](repeating: 0, count: model.fit.size * model.fit.size * 3)
        do { _ = try model.scores(of: black) } catch { print(error) }
    case "release":
        let folder = URL(fileURLWithPath: arguments[1])
        let model = try Classifier(folder: folder, on: .cpu)
        do {
            try model.check(folder.appendingPathComponent("golden"), delegate: "cpu")
            print("right", model.temperature, separator: "\t")
        } catch { print(error) }
    case "tensor":
        let input = try InputTensor(
            kind: .float32, layout: .init(rawValue: arguments[1])!, mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225])
        try Data(input.bytes(of: noise(8, 8, seed: 3))).write(to: URL(fileURLWithPath: arguments[2]))
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
            let odd = Format(step: 3, red: 3, green: 1, blue: 2)
            say("channel") { _ = try Pixels(memory, width: 4, height: 4, stride: 12, format: odd) }
            say("last row") { _ = try Pixels(memory, width: 5, height: 4, stride: 28, format: .rgb) }
            let none = UnsafeRawBufferPointer(start: nil, count: 0)
            say("nothing") { _ = try Pixels(none, width: 1, height: 1, stride: 4, format: .rgbx) }
        }
        say("no file") { _ = try Classifier().classify(contentsOf: URL(fileURLWithPath: "/nowhere.png")) }
        say("square") { _ = try Classifier().scores(of: bytes) }
        say("metal") { _ = try Classifier(on: .metal) }
        say("core ml") { _ = try Classifier(on: .coreML) }
        say("folder") { _ = try Classifier(runtime: Fixed(), folder: URL(fileURLWithPath: "/nowhere")) }
        say("model") { _ = try TensorFlowLiteRuntime(model: Classifier.url("labels.txt"), on: .cpu, threads: 1) }
    case "composed":
        var found: [UInt8] = []
        for alpha in 0...255 {
            for level in 0...255 { found += [0, 10, 128, 255].map { composed(UInt8(level), UInt8(alpha), $0) } }
        }
        try Data(found).write(to: URL(fileURLWithPath: arguments[1]))
    default:
        for (width, height) in [(640, 480), (1920, 1080), (4000, 3000)] { print(try milliseconds(width, height)) }
    }
}

for command in CommandLine.arguments.dropFirst().split(separator: "--") {
    mutant = ""
    try run(Array(command))
    print("--")
}
