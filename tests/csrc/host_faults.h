// The kernels of faulty_kernels.cuh. Included in host_kernels.cpp, in a namespace without a name.
#pragma once

/// A kernel of an input and an output.
template <auto kernel>
void launch_two(const Request& r) {
  r.launch(kernel, r.at<F>(0), r.at<F>(1));
}

/// By name; the tests of host_cuda.h ask for them.
const std::map<std::string, Run>& faults() {
  static const std::map<std::string, Run> table = {
      {"warp_sums", [](const Request& r) { r.launch(faulty::warp_sums, r.at<F>(0), r.at<F>(1), r.at<F>(2)); }},
      {"double_vectors", launch_two<faulty::double_vectors>},
      {"misaligned_load", launch_two<faulty::misaligned_load>},
      {"read_past_end",
       [](const Request& r) { r.launch(faulty::read_past_end, r.at<F>(0), r.at<F>(1), r.integer(0)); }},
      {"write_past_end",
       [](const Request& r) { r.launch(faulty::write_past_end, r.at<F>(0), r.at<F>(1), r.integer(0)); }},
      {"shared_row_overflow", launch_two<faulty::shared_row_overflow>},
      {"shared_overflow", launch_two<faulty::shared_overflow>},
      {"unwritten_shared", launch_two<faulty::unwritten_shared>},
      {"no_barrier_before_read", launch_two<faulty::no_barrier_before_read>},
      {"no_barrier_before_write",
       [](const Request& r) { r.launch(faulty::no_barrier_before_write, r.at<F>(0), r.at<F>(1), r.integer(0)); }},
      {"early_return", launch_two<faulty::early_return>},
      {"two_barriers", launch_two<faulty::two_barriers>},
      {"copy_through_shared", launch_two<faulty::copy_through_shared>},
      {"read_before_arrival", launch_two<faulty::read_before_arrival>},
      {"copy_left_behind", launch_two<faulty::copy_left_behind>},
      {"no_barrier_after_copy", launch_two<faulty::no_barrier_after_copy>},
      {"misaligned_copy", launch_two<faulty::misaligned_copy>},
      {"dynamic_overflow", launch_two<faulty::dynamic_overflow>},
      {"absent_lanes", launch_two<faulty::absent_lanes>},
      {"unordered_writes", launch_two<faulty::unordered_writes>},
      {"writes_input", launch_two<faulty::writes_input>},
      {"narrow_index", [](const Request& r) { r.launch(faulty::narrow_index, r.at<F>(0), r.at<F>(1), r.integer(0)); }},
  };
  return table;
}
