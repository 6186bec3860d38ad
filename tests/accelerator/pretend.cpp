// A device that is none: host memory under a device's name, so that tensors of two places cannot meet
// unnoticed and every wait for the device is counted. What PyTorch calls a PrivateUse1 backend.

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/GeneratorForPrivateuseone.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <atomic>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace {

constexpr auto KIND = c10::DeviceType::PrivateUse1;
std::atomic<int64_t> waits{0};
std::string last_wait;

void waited(const std::string& what) {
  ++waits;
  last_wait = what;
}

struct Memory final : at::Allocator {
  at::DataPtr allocate(size_t size) override {
    at::DataPtr host = at::getCPUAllocator()->allocate(size);
    auto* raw = host.release_context();
    return {raw, raw, &free_, at::Device(KIND, 0)};
  }
  static void free_(void* raw) { at::getCPUAllocator()->raw_deleter()(raw); }
  at::DeleterFnPtr raw_deleter() const override { return &free_; }
  void copy_data(void* to, const void* from, size_t count) const override {
    default_copy_data(to, from, count);
  }
};

Memory memory;
REGISTER_ALLOCATOR(KIND, &memory);

struct Guard final : c10::impl::NoOpDeviceGuardImpl<KIND> {  // one stream: nothing ever waits
  c10::Device getDevice() const override { return c10::Device(KIND, 0); }
  c10::Device exchangeDevice(c10::Device) const override { return c10::Device(KIND, 0); }
  c10::Stream getStream(c10::Device device) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, c10::Device(KIND, 0));
  }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override { return stream; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Generator final : c10::GeneratorImpl {
  explicit Generator(c10::DeviceIndex index)
      : c10::GeneratorImpl(at::Device(KIND, index), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)),
        host(at::detail::createCPUGenerator()) {}
  void set_current_seed(uint64_t seed) override { host.set_current_seed(seed); }
  void set_offset(uint64_t offset) override { host.set_offset(offset); }
  uint64_t get_offset() const override { return host.get_offset(); }
  uint64_t current_seed() const override { return host.current_seed(); }
  uint64_t seed() override { return host.seed(); }
  void set_state(const c10::TensorImpl& state) override { host.unsafeGetGeneratorImpl()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return host.unsafeGetGeneratorImpl()->get_state();
  }
  Generator* clone_impl() const override {
    auto* copy = new Generator(device().index());
    copy->host = host.clone();
    return copy;
  }
  at::Generator host;
};

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  at::Generator getNewGenerator(c10::DeviceIndex index) const override {
    return at::make_generator<Generator>(index < 0 ? 0 : index);
  }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    static at::Generator generator = at::make_generator<Generator>(0);
    return generator;
  }
};

at::Tensor on_host(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.device().type() != KIND) return tensor;
  return at::from_blob(
      tensor.data_ptr(), tensor.sizes(), tensor.strides(), tensor.options().device(at::kCPU));
}

at::Tensor on_device(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.to(at::Device(KIND, 0)) : tensor;
}

// ---- what a backend has to bring itself

at::Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &memory,
                                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           c10::dtype_or_default(dtype));
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool) {
  if (from.device().type() == KIND && to.device().type() != KIND) waited("copy to the host");
  on_host(to).copy_(on_host(from));
  return to;
}

at::Tensor copy_and_resize(const at::Tensor& from, const at::Tensor& to) {
  if (to.sizes() != from.sizes()) to.resize_(from.sizes());
  return copy_from(from, to, false);
}

const at::Tensor& resize(const at::Tensor& self, at::IntArrayRef size, std::optional<at::MemoryFormat> format) {
  auto fresh = at::empty(size, self.options(), format);
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(fresh.storage());
  self.unsafeGetTensorImpl()->set_sizes_and_strides(fresh.sizes(), fresh.strides());
  return self;
}

at::Scalar item(const at::Tensor& self) {
  waited("a value read back");
  return on_host(self).item();
}

at::Tensor& set_storage(at::Tensor& self, at::Storage source, int64_t offset, at::IntArrayRef size,
                        at::IntArrayRef stride) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(source));
  impl->set_storage_offset(offset);
  if (stride.data() == nullptr || stride.empty()) impl->set_sizes_contiguous(size);
  else impl->set_sizes_and_strides(size, stride);
  return self;
}

at::Tensor& set_whole_storage(at::Tensor& self, at::Storage source) {
  const int64_t count = source.nbytes() / self.itemsize();
  return set_storage(self, std::move(source), 0, {count}, {});
}

at::Tensor& set_tensor(at::Tensor& self, const at::Tensor& source) {
  return set_storage(self, source.storage(), source.storage_offset(), source.sizes(), source.strides());
}

at::Tensor convolution(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                       at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
                       bool transposed, at::IntArrayRef output_padding, int64_t groups) {
  auto own = bias.has_value() && bias->defined() ? std::optional<at::Tensor>(on_host(*bias)) : std::nullopt;
  TORCH_CHECK(input.device() == weight.device(), "Expected all tensors to be on the same device");
  return on_device(at::convolution(on_host(input), on_host(weight), own, stride, padding, dilation,
                                   transposed, output_padding, groups));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(
    const at::Tensor& slope, const at::Tensor& input, const at::Tensor& weight, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed, at::IntArrayRef output_padding,
    int64_t groups, std::array<bool, 3> wanted) {
  auto [a, b, c] = at::convolution_backward(
      on_host(slope), on_host(input), on_host(weight), at::OptionalIntArrayRef({weight.size(transposed ? 1 : 0)}),
      stride, padding, dilation, transposed, output_padding, groups, wanted);
  return {on_device(a), on_device(b), on_device(c)};
}

// ---- everything else runs on the host, once it is sure that a real device would have run it

const std::set<std::string> MIXED = {  // indices and values of these may be elsewhere
    "aten::index.Tensor", "aten::index.Tensor_out", "aten::index_put_", "aten::index_put",
    "aten::_index_put_impl_"};
const std::set<std::string> WAITING = {  // the size of the result is known to the device alone
    "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::unique_dim",
    "aten::unique_consecutive", "aten::bincount", "aten::equal", "aten::histc", "aten::repeat_interleave.Tensor"};

struct Call {  // arguments as host tensors that share the memory, and what they stand for
  std::string name;
  bool here = false, there = false;
  std::vector<std::pair<at::Tensor, at::Tensor>> known;

  at::Tensor to_host(const at::Tensor& tensor, bool is_out) {
    if (!tensor.defined()) return tensor;
    if (tensor.device().type() != KIND) {
      there = there || tensor.dim() > 0;
      return tensor;
    }
    here = true;
    auto host = is_out ? at::empty({0}, tensor.options().device(at::kCPU)) : on_host(tensor);
    known.emplace_back(host, tensor);
    return known.back().first;
  }

  static at::Tensor filled(const at::Tensor& device, const at::Tensor& host) {
    if (device.sizes() != host.sizes()) device.resize_(host.sizes());
    return device.copy_(host);
  }

  at::Tensor to_device(const at::Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    for (const auto& [host, device] : known) {
      if (host.is_same(tensor)) return host.data_ptr() == device.data_ptr() ? device : filled(device, host);
      TORCH_CHECK(tensor.numel() == 0 || !host.is_alias_of(tensor), name, " returns a view: it needs a kernel");
    }
    return on_device(tensor);
  }

  void checked() const {
    TORCH_CHECK(!(here && there) || MIXED.count(name), name, ": Expected all tensors to be on the same device");
  }
};

template <class Change>
c10::IValue changed(const c10::IValue& value, Change change) {
  if (value.isTensor()) return change(value.toTensor());
  if (value.isTensorList()) {
    c10::List<at::Tensor> out;
    for (const auto& tensor : value.toTensorVector()) out.push_back(change(tensor));
    return out;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> out;
    for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector())
      out.push_back(tensor.has_value() ? std::optional<at::Tensor>(change(*tensor)) : std::nullopt);
    return out;
  }
  return value;
}

void everything_else(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  Call call{c10::toString(op.operator_name())};
  const auto first = stack->size() - op.schema().arguments().size();
  if (WAITING.count(call.name)) waited(call.name);
  const auto before = waits.load();
  for (auto place = first; place < stack->size(); ++place) {
    auto& value = (*stack)[place];
    if (value.isGenerator() && value.toGenerator().defined()) {
      auto generator = value.toGenerator();
      TORCH_CHECK(generator.device().type() == KIND, call.name, ": Expected a generator of the device");
      value = static_cast<Generator*>(generator.unsafeGetGeneratorImpl())->host;
    } else if (value.isDevice()) {
      value = c10::Device(at::kCPU);
    } else {
      const bool is_out = op.schema().arguments()[place - first].is_out();
      value = changed(value, [&](const at::Tensor& tensor) { return call.to_host(tensor, is_out); });
    }
  }
  call.checked();
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  for (auto place = stack->size() - op.schema().returns().size(); place < stack->size(); ++place)
    (*stack)[place] = changed((*stack)[place], [&](const at::Tensor& tensor) { return call.to_device(tensor); });
  waits = before;
}

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&everything_else>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_and_resize);
  m.impl("resize_", resize);
  m.impl("_local_scalar_dense", item);
  m.impl("set_.source_Storage_storage_offset", set_storage);
  m.impl("set_.source_Storage", set_whole_storage);
  m.impl("set_.source_Tensor", set_tensor);
  m.impl("as_strided", at::native::as_strided_tensorimpl);
  m.impl("view", at::native::view);
  m.impl("unfold", at::native::unfold);
  m.impl("_reshape_alias", at::native::_reshape_alias);
  m.impl("convolution_overrideable", convolution);
  m.impl("convolution_backward_overrideable", convolution_backward);
}

TORCH_LIBRARY(pretend, m) {
  m.def("waits() -> int", [] { return waits.load(); });
  m.def("last_wait() -> str", [] { return last_wait; });
}

namespace {
[[maybe_unused]] const bool hooked = (at::RegisterPrivateUse1HooksInterface(new Hooks), true);
}
