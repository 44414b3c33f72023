"""The VCL tables that vcld reads or writes, one class each, columns named as in the database."""

from vcld.schema.models.requests import ChangeLog, ConnectLog, Log, Request, Reservation, ReservationAccount, ServerRequest, SubLog, VcldSemaphore
from vcld.schema.models.loadlog import ComputerLoadFlow, ComputerLoadLog, ComputerLoadState
from vcld.schema.models.computers import Computer, NATHost, NATHostComputerMap, NATLog, NATPort, Platform, VMHost, VMProfile
from vcld.schema.models.images import ConnectMethod, ConnectMethodMap, ConnectMethodPort, Image, ImageMeta, ImageRevision, ImageType, OS, OSInstallType, OStype
from vcld.schema.models.people import AdminLevel, Affiliation, IMtype, User, UserGroup, UserGroupMember
from vcld.schema.models.site import CryptKey, CryptSecret, ManagementNode, Module, Provisioning, ProvisioningOSInstallType, Resource, ResourceGroup, ResourceGroupMember, ResourceMap, ResourceType, State, Variable
from vcld.schema.models.blocks import BlockComputer, BlockRequest, BlockTime

__all__ = ["AdminLevel", "Affiliation", "BlockComputer", "BlockRequest", "BlockTime", "ChangeLog", "Computer", "ComputerLoadFlow", "ComputerLoadLog", "ComputerLoadState", "ConnectLog", "ConnectMethod", "ConnectMethodMap", "ConnectMethodPort", "CryptKey", "CryptSecret", "IMtype", "Image", "ImageMeta", "ImageRevision", "ImageType", "Log", "ManagementNode", "Module", "NATHost", "NATHostComputerMap", "NATLog", "NATPort", "OS", "OSInstallType", "OStype", "Platform", "Provisioning", "ProvisioningOSInstallType", "Request", "Reservation", "ReservationAccount", "Resource", "ResourceGroup", "ResourceGroupMember", "ResourceMap", "ResourceType", "ServerRequest", "State", "SubLog", "User", "UserGroup", "UserGroupMember", "VMHost", "VMProfile", "Variable", "VcldSemaphore"]
