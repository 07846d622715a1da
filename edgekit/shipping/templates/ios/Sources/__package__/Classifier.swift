// Classifies pictures with the model of this package. Made by edgekit.

import Foundation

#if canImport(CryptoKit)
import CryptoKit
#endif

extension ClassifierError: LocalizedError {
    public var errorDescription: String? { description }
}

/// A class and its probability.
public struct Answer: Sendable {
    public let label: String
    public let probability: Double
    /// Of the class, from 0, in the order of labels.txt.
    public let number: Int
    public let score: Float
}

/// What runs the model: TensorFlowLiteRuntime, or one of your own.
public protocol Runtime {
    /// Returns the scores of one picture, in the order of labels.txt.
    ///
    /// - Parameter input: bytes of the whole input tensor, as `InputTensor` describes it.
    func scores(of input: [UInt8]) throws -> [Float]
}

/// A model, its labels and its preprocessing. For one thread at a time, as the runtime is.
public final class Classifier {
    public let labels: [String]
    public let fit: Fit
    public let input: InputTensor
    public let temperature: Double
    private let runtime: Runtime

    /// Reads labels and preprocessing.
    ///
    /// - Parameter folder: with labels.txt and preprocess.json; by default those of this package.
    /// - Throws: `ClassifierError` if they are missing, damaged or of another model.
    public init(runtime: Runtime, folder: URL? = nil) throws {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        let contract = try decoder.decode(Contract.self, from: Classifier.read("preprocess.json", folder))
        labels = try contract.labels(Classifier.read("labels.txt", folder))
        fit = try contract.fit()
        input = try contract.input()
        temperature = contract.scores.temperature ?? 1
        self.runtime = runtime
    }

    /// Returns every class, the most probable first.
    ///
    /// - Parameter pixels: an upright picture.
    public func classify(_ pixels: Pixels) throws -> [Answer] {
        try answers(scores(of: fit.square(of: pixels)))
    }

    /// Returns the scores of one square of RGB pixels, as `fit` gives it.
    public func scores(of square: [UInt8]) throws -> [Float] {
        guard square.count == fit.size * fit.size * 3 else {
            throw ClassifierError("a square has \(fit.size * fit.size * 3) bytes, not \(square.count)")
        }
        let scores = try runtime.scores(of: input.bytes(of: square))
        guard scores.count == labels.count else {
            throw ClassifierError("the model gives \(scores.count) scores, and labels.txt has \(labels.count) lines")
        }
        return scores
    }

    /// Returns the classes of scores, the most probable first; equal ones in the order of labels.txt.
    func answers(_ scores: [Float]) -> [Answer] {
        let shares = probabilities(scores)
        return shares.indices.sorted { (-shares[$0], $0) < (-shares[$1], $1) }.map {
            Answer(label: labels[$0], probability: shares[$0], number: $0, score: scores[$0])
        }
    }

    /// Returns the softmax of scores over the temperature.
    public func probabilities(_ scores: [Float]) -> [Double] {
        let most = Double(scores.max() ?? 0)
        let powers = scores.map { exp((Double($0) - most) / temperature) }
        let total = powers.reduce(0, +)
        return powers.map { $0 / total }
    }

    /// Returns where a file of this package is.
    static func url(_ name: String) throws -> URL {
        #if SWIFT_PACKAGE
        let bundle = Bundle.module
        #else  // CocoaPods puts the files into a bundle of their own, other projects into the app's
        let own = Bundle(for: Classifier.self)
        let bundle = own.url(forResource: Model.package, withExtension: "bundle").flatMap(Bundle.init(url:)) ?? own
        #endif
        guard let url = bundle.url(forResource: name, withExtension: nil) else {
            throw ClassifierError("\(name) is not among the resources of \(bundle.bundlePath)")
        }
        return url
    }

    private static func read(_ name: String, _ folder: URL?) throws -> Data {
        try Data(contentsOf: folder?.appendingPathComponent(name) ?? url(name))
    }
}

/// preprocess.json.
private struct Contract: Decodable {
    struct Tensor: Decodable {
        let type: String
        let layout: String
        let mean: [Float]?
        let std: [Float]?
    }

    struct Scores: Decodable {
        let classes: Int
        let temperature: Double?
    }

    let schema: Int
    let geometry: String
    let imageSize: Int
    let resizeSize: Int
    let resample: String
    let background: String
    let tensor: Tensor
    let scores: Scores
    let labelsSha256: String

    func fit() throws -> Fit {
        guard schema == 1, let kernel = Kernel(rawValue: resample), let geometry = Geometry(rawValue: geometry),
            background.utf8.count == 7, let colour = UInt32(background.dropFirst(), radix: 16)
        else { throw ClassifierError("preprocess.json is not of the schema 1 that this code is for") }
        let levels = [colour >> 16, colour >> 8, colour].map { UInt8($0 & 255) }
        return try Fit(
            size: imageSize, resizeSize: resizeSize, kernel: kernel, geometry: geometry, background: levels)
    }

    func input() throws -> InputTensor {
        guard let kind = InputTensor.Kind(rawValue: tensor.type),
            let layout = InputTensor.Layout(rawValue: tensor.layout)
        else { throw ClassifierError("an input of \(tensor.type) \(tensor.layout) is not known here") }
        return try InputTensor(kind: kind, layout: layout, mean: tensor.mean ?? [], std: tensor.std ?? [])
    }

    /// Returns the lines of labels.txt. They are split as bytes: in Swift, "\r\n" is one character.
    func labels(_ text: Data) throws -> [String] {
        #if canImport(CryptoKit)
        let hash = SHA256.hash(data: text).map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
        guard hash == labelsSha256 else { throw ClassifierError("labels.txt is not the one of this model") }
        #endif
        let lines = text.split(separator: 10, omittingEmptySubsequences: false)
        var labels = lines.map { String(decoding: $0, as: UTF8.self) }
        if labels.last == "" { labels.removeLast() }
        guard labels.count == scores.classes else {
            throw ClassifierError("labels.txt has \(labels.count) lines, and the model \(scores.classes) classes")
        }
        return labels
    }
}
