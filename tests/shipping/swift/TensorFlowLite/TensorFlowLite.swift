// Stands in for TensorFlowLiteSwift 2.14: the signatures that the kit uses, on LiteRT. It has no int8 tensors either.
import CLiteRt
import Foundation

public protocol Delegate: AnyObject {}

public enum InterpreterError: Error { case failedToLoadModel, invalidTensorDataCount, invalidTensorDataType, failed }

public struct Tensor {
    public enum DataType { case bool, uInt8, int16, int32, int64, float16, float32, float64 }

    public let dataType: DataType
    public let data: Data
}

public final class Interpreter {
    public struct Options {
        public var threadCount: Int?
        public init() {}
    }

    public let inputTensorCount = 1
    public let outputTensorCount = 1
    private let model: OpaquePointer
    private var input = Data()
    private var output: [Float]

    public init(modelPath: String, options: Options? = nil, delegates: [Delegate]? = nil) throws {
        guard let model = model_open(modelPath) else { throw InterpreterError.failedToLoadModel }
        self.model = model
        output = [Float](repeating: 0, count: model_outputs(model))
    }

    public func allocateTensors() throws {}

    @discardableResult
    public func copy(_ data: Data, toInputAt index: Int) throws -> Tensor {
        guard data.count == model_input_bytes(model) else { throw InterpreterError.invalidTensorDataCount }
        let types: [Int32: Tensor.DataType] = [1: .float32, 3: .uInt8]
        guard let type = types[model_input_type(model)] else { throw InterpreterError.invalidTensorDataType }
        input = data
        return Tensor(dataType: type, data: data)
    }

    public func invoke() throws {
        let status = input.withUnsafeBytes { model_run(model, $0.baseAddress, &output) }
        guard status == 0 else { throw InterpreterError.failed }
    }

    public func output(at index: Int) throws -> Tensor {
        Tensor(dataType: .float32, data: output.withUnsafeBytes { Data($0) })
    }
}
