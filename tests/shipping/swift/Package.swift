// swift-tools-version:5.9
// A program of a kit's own sources, with stand-ins for Apple's frameworks and for TensorFlowLiteSwift: the signatures
// that the kit uses, as documented. Program gets the sources of the kit.
import Foundation
import PackageDescription

let runtime = ProcessInfo.processInfo.environment["LITERT"] ?? ""  // folder of libLiteRt.so

let package = Package(
    name: "Program",
    targets: [
        .target(name: "CCrypto", path: "CCrypto", linkerSettings: [.unsafeFlags(["-l:libcrypto.so.3"])]),
        .target(name: "CryptoKit", dependencies: ["CCrypto"], path: "CryptoKit"),
        .target(name: "CoreGraphics", path: "CoreGraphics"),
        .target(name: "CoreVideo", path: "CoreVideo"),
        .target(name: "ImageIO", dependencies: ["CoreGraphics"], path: "ImageIO"),
        .target(
            name: "CLiteRt", path: "CLiteRt",
            linkerSettings: [.unsafeFlags(["-L\(runtime)", "-lLiteRt", "-Xlinker", "-rpath=\(runtime)"])]),
        .target(name: "TensorFlowLite", dependencies: ["CLiteRt"], path: "TensorFlowLite"),
        .executableTarget(
            name: "Program", dependencies: ["CoreGraphics", "CoreVideo", "CryptoKit", "ImageIO", "TensorFlowLite"],
            path: "Program",
            resources: [.process("Model")]),
    ]
)
