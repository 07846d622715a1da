// Runs the model with TensorFlowLiteSwift. Made by edgekit.

#if canImport(TensorFlowLite)
import Foundation
import TensorFlowLite

/// What runs the model. Nothing is replaced by another: what is not there is an error.
public enum Device: String, CaseIterable, Sendable {
    case cpu
    /// The GPU; needs the pod TensorFlowLiteSwift/Metal.
    case metal
    /// The Neural Engine; needs the pod TensorFlowLiteSwift/CoreML.
    case coreML
}

extension Classifier {
    /// Opens the model of this package.
    public convenience init(on device: Device = .cpu, threads: Int = 2) throws {
        try self.init(runtime: TensorFlowLiteRuntime(model: Classifier.url(Model.file), on: device, threads: threads))
    }
}

/// A .tflite file, opened. Operators that a GPU or a Neural Engine does not know still run on the CPU, and
/// TensorFlowLiteSwift does not tell which; the tests of this package compare the scores of each device.
public final class TensorFlowLiteRuntime: Runtime {
    public let device: Device
    private let interpreter: Interpreter

    /// - Parameter isFloat: whether the weights are no integers; by default as those of this package's model.
    /// - Throws: `ClassifierError` if the device is not there, TensorFlow Lite's errors if it cannot run the file.
    public init(model: URL, on device: Device, threads: Int, isFloat: Bool? = nil) throws {
        var options = Interpreter.Options()
        options.threadCount = threads
        self.device = device
        // From a path: some versions free a model that was given as data while it is in use.
        let delegates = try delegates(for: device, isFloat ?? Model.isFloat)
        interpreter = try Interpreter(modelPath: model.path, options: options, delegates: delegates)
        try interpreter.allocateTensors()
        guard interpreter.inputTensorCount == 1, interpreter.outputTensorCount == 1 else {
            throw ClassifierError("\(model.lastPathComponent) has more than one input or output")
        }
    }

    public func scores(of input: [UInt8]) throws -> [Float] {
        try interpreter.copy(Data(input), toInputAt: 0)
        try interpreter.invoke()
        let output = try interpreter.output(at: 0)
        guard output.dataType == .float32 else {
            throw ClassifierError("scores of the type \(output.dataType) are not known here")
        }
        return output.data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
    }
}

/// Returns the delegates of a device; nil for the CPU.
private func delegates(for device: Device, _ isFloat: Bool) throws -> [Delegate]? {
    switch device {
    case .cpu:
        return nil
    case .metal:
        #if canImport(TensorFlowLiteCMetal)
        return [MetalDelegate()]
        #else
        throw ClassifierError("this build has no Metal delegate: add the pod TensorFlowLiteSwift/Metal")
        #endif
    case .coreML:
        #if canImport(TensorFlowLiteCCoreML)
        guard isFloat else { throw ClassifierError("Core ML runs float models: ship the FP16 or FP32 file") }
        guard let delegate = CoreMLDelegate() else { throw ClassifierError("this device has no Neural Engine") }
        return [delegate]
        #else
        throw ClassifierError("this build has no Core ML delegate: add the pod TensorFlowLiteSwift/CoreML")
        #endif
    }
}
#endif
