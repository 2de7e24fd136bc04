// Who holds the memory of a GPU, asked of NVIDIA's management library where the system has it: a
// user whose run does not fit wants a name, not a number. Loaded at run time and declared by hand,
// because it comes with the driver and not with the toolkit; nothing fails without it. In a
// container it may see no process, or ids that are the host's: these get no name, because the same
// id may be another process there. Of a part of a GPU (MIG) it says nothing.
// Path: cold.
#pragma once

#include <string>

namespace plumb::cuda {

// "python (pid 4711) 70.1 GiB, this process 1.2 GiB, pid 4712 (not visible here) 0.5 GiB", the
// largest first; empty when the system does not tell. `pci_bus_id` as cudaDeviceGetPCIBusId writes
// it.
std::string memory_holders(const char* pci_bus_id);

}  // namespace plumb::cuda
